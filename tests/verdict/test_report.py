"""Words, terminal table, pictures and page of a small sweep."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
from rich.console import Console
from synthetic_sweep import write_sweep

from raymdm.verdict import SequentialDesign, curve_plots, read_sweep, summarise
from raymdm.verdict.report import render_report
from raymdm.verdict.tables import print_summary

SCORES = {
    "standard": [0.5064, 0.5322, 0.5368],
    "ours": [0.6202, 0.5861, 0.6096],
    "other": [0.52, "diverged", 0.54],
}


def summary_of(folder, scores=SCORES, **design):
    return summarise(read_sweep(write_sweep(folder, scores, **design)))


def printed(summary, width=120):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_summary(summary, console)
    return console.export_text()


def test_the_sentence_of_a_clear_difference_has_size_interval_p_and_what_it_rests_on(tmp_path):
    scores = {"standard": SCORES["standard"], "ours": SCORES["ours"]}
    assert summary_of(tmp_path, scores).sentences[0] == (
        "ours is better than standard on accuracy by 0.080 [0.042, 0.119] (Welch 95% interval, "
        "Holm p = 0.004, 3 against 3 seeds); rests on normality: with 3 against 3 seeds no "
        "permutation test can go below p = 0.10"
    )


def test_lower_nelbo_is_worded_as_better_by_a_positive_amount(tmp_path):
    text = summary_of(tmp_path, metric="nelbo").sentences[0]
    assert text.startswith("ours is better than standard on nelbo by 0.080 [0.042, 0.119]")


def test_an_undecided_sentence_says_how_many_seeds_it_would_take(tmp_path):
    scores = {"standard": SCORES["standard"], "other": [0.52, 0.55, 0.53]}
    text = summary_of(tmp_path, scores).sentences[0]
    assert text.startswith("undecided: other against standard on accuracy, difference +0.008 [")
    assert re.search(
        r"about \d+–\d+ seeds per arm would be needed to see a difference of 0.019", text
    )
    assert text.endswith("(twice the baseline's standard error)")


def test_the_other_metric_is_marked_secondary(tmp_path):
    summary = summary_of(tmp_path)
    primary, secondary = summary.comparisons
    assert (primary.metric.name, secondary.metric.name) == ("accuracy", "nelbo")
    assert not any("secondary" in text for text in primary.sentences)
    assert all(text.startswith("secondary: ") for text in secondary.sentences)


def test_a_metric_chosen_after_the_runs_is_pointed_out(tmp_path):
    results = read_sweep(write_sweep(tmp_path, SCORES))
    assert not any("afterwards" in note for note in summarise(results).notes)
    assert any(
        "nelbo was chosen afterwards" in note for note in summarise(results, None, "nelbo").notes
    )


def test_the_margin_belongs_to_the_declared_metric_alone(tmp_path):
    results = read_sweep(write_sweep(tmp_path, SCORES, margin=0.02))
    primary, secondary = summarise(results).comparisons
    assert (primary.verdict.margin, secondary.verdict.margin) == (0.02, None)
    assert summarise(results, metric="nelbo").comparisons[0].verdict.margin is None


def test_the_terminal_shows_divergence_verdicts_and_both_metrics(tmp_path):
    text = printed(summary_of(tmp_path))
    assert text.index("accuracy (higher is better)") < text.index("NELBO per token")
    for words in ("diverged 1/3", "better", "undecided", "baseline", "rests on normality"):
        assert words in text


def test_a_narrow_terminal_loses_no_number(tmp_path):
    text = printed(summary_of(tmp_path), width=80)
    assert max(map(len, text.splitlines())) <= 80
    for words in ("0.525", "+0.080", "0.119]"):
        assert words in text


class Page(HTMLParser):
    """Collects what a browser would fetch, and checks that the elements close."""

    def __init__(self, text):
        super().__init__()
        self.links, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.links.append(value)


def test_the_page_is_self_contained_and_complete(tmp_path):
    summary = summary_of(tmp_path)
    text = render_report(summary)
    page = Page(text)
    assert page.links == []
    assert "@import" not in text
    assert "url(http" not in text
    assert 'name="viewport"' in text
    # Seeds of two metrics, training loss, validation NELBO.
    assert page.tags.count("svg") == 4
    # Two metrics, each with what stands beside its verdicts; the runs, counted and one by one.
    assert page.tags.count("table") == 6
    assert len(text) < 400_000
    for sentence in summary.sentences:
        assert sentence.replace("'", "&#39;") in text


def test_what_comes_from_the_runs_is_escaped(tmp_path):
    scores = {"a<b>": [0.5, 0.6], "c": [0.5, "failed"]}
    text = render_report(summary_of(tmp_path, scores))
    assert "a<b>" not in text
    assert "a&lt;b&gt;" in text
    assert "c &lt;failed&gt; at step 250" in text


def test_a_sweep_without_any_finished_run_still_gets_its_page(tmp_path):
    text = render_report(summary_of(tmp_path, {"a": ["diverged", "failed"], "b": ["failed", None]}))
    assert "there are no finished runs" in text


def test_a_single_arm_is_described_and_not_compared(tmp_path):
    summary = summary_of(tmp_path, {"a": [0.5, 0.6]})
    assert summary.sentences[0] == "a is the only arm: nothing to compare on accuracy"
    assert "nothing to compare" in render_report(summary)


def test_a_band_spans_the_seeds_and_is_thinned():
    steps = np.arange(5000)
    low = pd.DataFrame({"seed": 0, "step": steps, "loss": 1.0})
    high = pd.DataFrame({"seed": 1, "step": steps, "loss": 3.0})
    high.loc[4999, "loss"] = np.nan
    band = curve_plots.seed_band(pd.concat([low, high]), "loss")
    assert len(band) == curve_plots.MOST_POINTS
    assert band.index[0] == 0
    assert band.index[-1] == 4999
    assert band.iloc[0].to_list() == [2.0, 1.0, 3.0]
    assert band.iloc[-1].to_list() == [1.0, 1.0, 1.0], "a seed that stopped leaves the band"


DESIGN = SequentialDesign(
    ("standard", "ours", "other"), tuple(range(9)), batch=3, margin=0.05, metric="accuracy"
)


def adaptive(folder, scores, **others):
    sweep = write_sweep(folder, scores, until=DESIGN.to_dict(), margin=0.05, **others)
    return summarise(read_sweep(sweep))


def test_where_seeds_were_added_until_it_was_decided_the_words_are_the_looks(tmp_path):
    base = [0.49, 0.495, 0.5, 0.505, 0.51, 0.5]
    scores = {
        "standard": base,
        "ours": [score + 0.2 for score in base],
        "other": [score + 0.011 for score in reversed(base)],
    }
    summary = adaptive(tmp_path, scores, extended_after_results=True)
    verdict = summary.comparisons[0].verdict
    assert verdict["ours"].verdict == "better"
    assert verdict["ours"].look.look == 2
    # A single look at six seeds would call this one better as well.
    assert verdict["other"].p_holm < 0.05
    assert verdict["other"].verdict == "equivalent"
    first, second = summary.comparisons[0].sentences
    assert "decided at look 2 of 3 with 6 seeds per arm (p is below the boundary; p " in first
    assert "Holm p < 0.001 before the looks" in first
    assert second.startswith("other is equivalent to standard")
    assert any(note.startswith("seeds were added until") for note in summary.notes)
    assert not any("p values are too small" in note for note in summary.notes)
    secondary = summary.comparisons[1].verdict
    assert secondary["ours"].look is None
    content = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert content["metrics"]["accuracy"]["arms"]["ours"]["look"]["n"] == 6
    render_report(summary)


def test_before_the_first_look_nothing_is_decided(tmp_path):
    scores = {arm: [0.5 + x, 0.51 + x] for arm, x in (("standard", 0), ("ours", 0.3), ("other", 0))}
    summary = adaptive(tmp_path, scores)
    assert {row.verdict for row in summary.comparisons[0].verdict.arms[1:]} == {"undecided"}
    assert "no look yet" in summary.sentences[0]
