"""Terminal tables, pictures and page of figures."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console
from rich.measure import Measurement
from synthetic_figures import MASKS_LEAD, PER_STEP, estimator, fit, parts, synthetic

from raymdm.errors import DataError
from raymdm.variances import write_figures
from raymdm.variances.figures import Figure, Figures
from raymdm.variances.page import render_page
from raymdm.variances.plots import additive_correlation, densities_plot, normalised_probe
from raymdm.variances.recommend import recommend
from raymdm.variances.tables import decomposition_table, estimators_table, print_figures


def printed(figures, width=100, styles=False):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_figures(figures, console)
    return console.export_text(styles=styles)


class Page(HTMLParser):
    """Collects what a browser would fetch, the cells of tables, and elements left open."""

    VOID = ("meta", "br", "use", "path")

    def __init__(self, text):
        super().__init__()
        self.links, self.tags, self.cells, self.open, self.ids = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.links.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells.append(data.strip())


@pytest.mark.parametrize("table", [decomposition_table, estimators_table])
def test_tables_need_no_more_than_a_hundred_columns(table):
    console = Console(width=300)
    for figures in (synthetic(), synthetic(dict.fromkeys(PER_STEP, 0.043) | {"standard": 1.0})):
        wanted = Measurement.get(console, console.options, table(recommend(figures)))
        assert wanted.maximum <= 100


def test_a_long_name_is_folded_and_not_lost():
    name = "configurations/of/mine/with-a-rather-long-name.yaml"
    figures = synthetic(estimators=[estimator("standard", 1.0), estimator(name, 0.9)])
    lines = [line[:20] for line in printed(figures).splitlines()]
    assert name in "".join(line.strip() for line in lines)


def test_the_terminal_shows_every_number_of_an_estimator():
    lines = printed(recommend(synthetic())).splitlines()
    line = next(line.split() for line in lines if line.strip().startswith("ppots_mirror "))
    assert " ".join(line) == (
        "ppots_mirror 2 0.53 0.45 [0.42, 0.48] 0.90 [0.84, 0.96] 0.45 1.04 iid"
    )
    assert {line.split()[0].rstrip("*") for line in lines if line.split()} >= PER_STEP.keys()


def test_another_objective_is_starred_and_explained_and_others_are_not():
    text = printed(synthetic())
    assert re.findall(r"(\w+)\*", text) == ["isad", "clipped"]
    assert "* another objective than Standard's" in text
    assert "*" not in printed(synthetic({"standard": 1.0, "mirror": 0.6}))


def test_only_the_recommended_line_is_bold():
    text = printed(recommend(synthetic()), styles=True)
    assert "\x1b[1mrecommended" in text
    assert "\x1b[1mlattice" not in text
    assert "recommended (bold): recommended" in printed(recommend(synthetic()))


def test_what_was_left_out_is_listed_with_its_reason():
    assert "left out: syrm, no row of the data has marked syntax" in printed(synthetic())


def test_the_check_of_the_components_says_agree_or_disagree():
    text = printed(synthetic(loss=parts(MASKS_LEAD, 0.05, direct=1.5)))
    assert "gradient: A + B + C and the direct variance agree (the intervals overlap)" in text
    assert "loss: A + B + C and the direct variance disagree (the intervals do not" in text


@pytest.mark.parametrize(
    ("total", "unit", "shown"),
    [
        (3.4e-6, "gradient (in 1e-6)", "2.52 [2.31, 2.72]"),
        (0.34, "gradient ", "0.252 [0.231, 0.272]"),
        (340.0, "gradient ", "252 [231, 272]"),
        (3.4e5, "gradient (in 1e5)", "2.52 [2.31, 2.72]"),
    ],
)
def test_variances_of_any_size_are_shown_with_three_digits(total, unit, shown):
    text = printed(synthetic(gradient=parts(MASKS_LEAD, total)))
    assert unit in text
    assert re.search(rf"A mask pattern +{re.escape(shown)} +74%", text)


def test_square_brackets_in_a_name_are_not_taken_for_a_style():
    figures = synthetic(left_out={"[bold]x": "[red]why[/red]"})
    assert "left out: [bold]x, [red]why[/red]" in printed(figures)


@pytest.fixture(scope="module")
def whole_page():
    return render_page(recommend(synthetic()))


def test_the_page_is_self_contained_and_whole(whole_page):
    figures, text = recommend(synthetic()), whole_page
    page = Page(text)
    assert page.links == []
    assert "@import" not in text
    assert "url(http" not in text
    assert 'name="viewport"' in text
    assert page.open == []
    referred = set(re.findall(r"(?:url\(|href=\")#([^\")]+)", text))
    assert referred
    assert all(page.ids.count(name) == 1 for name in referred)
    # Shares; dots, moments and correlation of both quantities; densities of rates and of shares.
    assert page.tags.count("svg") == 9
    assert len(text) < 600_000
    for sentence in figures.sentences:
        assert sentence.replace("'", "&#39;") in text
    assert text.index(figures.sentences[0]) < text.index("<h2>Estimators")


def test_the_page_shows_every_estimator_of_both_quantities_with_all_its_figures(whole_page):
    cells = Page(whole_page).cells
    for name in PER_STEP:
        starred = f"{name}*" if name in ("isad", "clipped") else name
        assert cells.count(starred) == 2
    start = cells.index("mirror")
    assert cells[start : start + 9] == [
        "mirror",
        "2",
        "1.16 [1.08, 1.24]",
        "0.58 [0.54, 0.62]",
        "0.57 [0.53, 0.61]",
        "0.59",
        "0.56 iid",
        "1.04 [0.97, 1.11]",
        "1.97e-06",
    ]


def test_what_comes_from_outside_is_escaped():
    evil = "a<b>&"
    figures = synthetic(
        model=evil,
        data=evil,
        estimators=[estimator("standard", 1.0), estimator(evil, 0.5)],
        left_out={evil: evil},
        densities={evil: fit("ppots")},
    )
    text = render_page(recommend(figures))
    assert "<b>&" not in text.replace("&amp;", "")
    assert text.count("a&lt;b&gt;&amp;") >= 8


def test_a_page_without_densities_or_anything_left_out_has_no_such_section():
    text = render_page(recommend(synthetic({"standard": 1.0}, densities={}, left_out={})))
    assert "Densities" not in text
    assert "Left out" not in text
    assert "another objective" not in text


def test_components_and_moments_below_zero_are_drawn_too():
    below = Figure(value=-1e-9, low=-2e-9, high=1e-9)
    curves = synthetic().gradient_curves
    flat = [below, *curves.v[1:]]
    figures = synthetic(
        {"standard": 1.0},
        gradient=parts(MASKS_LEAD | {"B1": -0.01}, 3.4e-6),
        gradient_curves=curves.model_copy(update={"v": flat}),
    )
    assert Page(render_page(recommend(figures))).open == []


def test_json_and_page_are_written_whole_and_read_back(tmp_path):
    figures = recommend(synthetic({"standard": 1.0}, densities={}))
    write_figures(figures, tmp_path / "new")
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["variance.html", "variance.json"]
    read = (tmp_path / "new" / "variance.json").read_text(encoding="utf-8")
    assert Figures.model_validate_json(read) == figures
    page = (tmp_path / "new" / "variance.html").read_text(encoding="utf-8")
    assert figures.sentences[1] in page
    assert page.rstrip().endswith("</html>")


def test_a_folder_that_is_a_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match=r"cannot write the figures to .*taken"):
        write_figures(synthetic(), tmp_path / "taken")


def test_the_probe_is_drawn_on_the_density_s_scale():
    """Whatever its unit, and though its rates do not reach the ends."""
    probed = fit("ppots")
    scaled = probed.model_copy(update={"probe_root": [1e4 * root for root in probed.probe_root]})
    assert normalised_probe(scaled) == pytest.approx(normalised_probe(probed))
    density = np.interp(probed.probe_t, probed.pdf_t, probed.pdf)
    assert np.abs(np.log(normalised_probe(probed) / density)).mean() < 0.1
    assert normalised_probe(fit("power")).size == 0


def test_rates_and_shares_are_drawn_apart():
    densities = {"ppots": fit("ppots"), "recommended": fit("recommended")}
    rates, shares = (densities_plot(densities, name) for name in ("rate", "share"))
    assert "ppots" in rates
    assert "mask rate t" in rates
    assert "recommended" not in rates
    assert "recommended" in shares
    assert "share k/n" in shares
    assert densities_plot({"ppots": fit("ppots")}, "share") is None


def test_the_reference_correlation_is_that_of_the_mask_indicators():
    t = np.array([0.2, 0.5, 0.8])
    uniform = np.random.default_rng(0).random(200_000)
    first, second = uniform[:, None] < t, uniform[:, None] > 1 - t
    drawn = [np.corrcoef(first[:, k], second[:, k])[0, 1] for k in range(3)]
    assert additive_correlation(t, 0.0) == pytest.approx(drawn, abs=0.01)
