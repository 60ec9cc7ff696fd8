"""The noise of every arm's training, from what its runs wrote step by step."""

from math import isnan, nan

import pytest
from synthetic_sweep import measure_noise, write_sweep

from raymdm.verdict import read_sweep, summarise
from raymdm.verdict.curve_plots import noise_plot
from raymdm.verdict.noise import noise_cells, noise_per_arm
from raymdm.verdict.report import render_report

SCORES = {"standard": [0.5, 0.6, 0.55], "mirror": [0.6, 0.65, "diverged"]}
PARTS = {"standard": (nan, 2.0, 8.0), "mirror": (3.0, 2.0, 5.0)}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = write_sweep(tmp_path_factory.mktemp("noise") / "sweep", SCORES)
    measure_noise(folder, PARTS)
    return folder


def test_means_are_over_the_last_quarter_of_the_finished_runs(sweep):
    standard, mirror = noise_per_arm(read_sweep(sweep))
    # The seed adds its number to the rows: 8, 9, 10, and what came before half way is not in it.
    assert standard["rows"]["mean"] == pytest.approx(9)
    assert standard["rows"]["sd"] == pytest.approx(1)
    assert standard["total"] == pytest.approx({"mean": 11, "sd": 1})
    assert (mirror["runs"], mirror["rows"]["mean"]) == (2, 5.5), "the diverged run is left out"
    assert mirror["gradient_norm"]["mean"] == pytest.approx(1.5)
    assert mirror["effective_sample_size"]["mean"] == pytest.approx(0.8)


def test_shares_are_of_the_total(sweep):
    _, mirror = noise_per_arm(read_sweep(sweep))
    shares = [mirror[name]["share"] for name in ("views", "rates", "rows")]
    assert shares == pytest.approx([3 / 10.5, 2 / 10.5, 5.5 / 10.5])


def test_one_view_cannot_tell_masks_from_data_and_says_so(sweep):
    summary = summarise(read_sweep(sweep))
    standard, mirror = summary.noise
    assert isnan(standard["views"]["mean"])
    assert noise_cells(standard)[2].detail == "within C"
    assert noise_cells(mirror)[2].main == "3"
    page = render_report(summary)
    assert "variance of one row's weighted loss" in page, "the picture"
    assert "within C" in page
    assert "it cannot be told apart and is in C" in " ".join(page.split())
    written = summary.to_dict()["noise"][0]
    assert written["views"] == {"mean": None, "sd": None, "share": None}


def test_a_part_below_zero_is_left_out_of_the_picture_only(tmp_path):
    folder = write_sweep(tmp_path, {"a": [0.5, 0.6]})
    measure_noise(folder, {"a": (1.0, -0.5, 4.0)})
    rows = noise_per_arm(read_sweep(folder))
    assert noise_cells(rows[0])[3].main == "-0.5"
    drawn = noise_plot(rows)
    rows[0]["rates"]["mean"] = 0.0
    assert noise_plot(rows) == drawn
    rows[0]["rates"]["mean"] = 2.0
    assert noise_plot(rows) != drawn


def test_runs_that_measured_no_noise_have_no_section(tmp_path):
    assert noise_per_arm(read_sweep(write_sweep(tmp_path, SCORES))) == []
