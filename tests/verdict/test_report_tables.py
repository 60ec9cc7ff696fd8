"""Settings that differ, what became of the runs, curves of many arms, and the Markdown report."""

import json
import re

import pytest
from rich.console import Console
from synthetic_sweep import configure, measure_noise, write_sweep

from raymdm.compare import compare_sweep
from raymdm.verdict import plots, read_sweep, summarise
from raymdm.verdict.cells import Cell
from raymdm.verdict.curve_plots import curve_plot
from raymdm.verdict.differences import differing_settings, settings_rows
from raymdm.verdict.markdown import escaped, markdown_table, render_markdown
from raymdm.verdict.report import render_report
from raymdm.verdict.tables import cells
from raymdm.verdict.tally import retry_note, tally

SCORES = {"standard": [0.5, 0.6, "failed"], "ours": [0.6, "diverged", 0.7]}
CONFIGS = {
    "standard": {
        "training": {"steps": 100, "batch_size": 8, "schedule": "cosine"},
        "checkpoints": {"storage": "a"},
        "estimator": {"density": {"probe": None}},
    },
    "ours": {
        "training": {"steps": 200, "batch_size": 8, "schedule": "cosine", "new": [1, 2]},
        "checkpoints": {"storage": "b"},
        "estimator": {"density": {"probe": {"rates": 4}}},
    },
}


@pytest.fixture
def sweep(tmp_path):
    folder = write_sweep(tmp_path / "sweep", SCORES)
    configure(folder, CONFIGS)
    return folder


def test_only_settings_that_differ_are_shown_with_every_arms_value(sweep):
    assert differing_settings(read_sweep(sweep)) == {
        "training.steps": {"standard": 100, "ours": 200},
        "estimator.density.probe.rates": {"ours": 4},
        "training.new": {"ours": [1, 2]},
    }


def test_settings_are_in_the_summary_and_on_the_page(sweep):
    summary = summarise(read_sweep(sweep))
    assert summary.to_dict()["settings"]["training.steps"] == {"standard": 100, "ours": 200}
    page = render_report(summary)
    assert "<td>training.steps</td><td>100</td><td>200</td>" in page
    assert "training.batch_size" not in page
    assert re.search(r'<td data-of="difference">\+0\.', page), "a phone's cards name the columns"
    assert "attr(data-of)" in page


def test_the_baseline_stands_first_in_the_settings(sweep):
    rows = settings_rows(differing_settings(read_sweep(sweep)), ["ours", "standard"])
    assert rows[0] == ("training.steps", [("200", True), ("100", False)])
    assert rows[1:] == [
        ("training.new", [("[1, 2]", True), ("–", False)]),
        ("estimator.density.probe.rates", [("4", True), ("–", False)]),
    ]


def test_a_run_without_a_configuration_leaves_the_report_whole(sweep):
    for file in sweep.glob("runs/*ours*/config.yaml"):
        file.write_text("{")
    assert differing_settings(read_sweep(sweep)) == {}


def test_what_became_of_the_runs_is_counted_by_arm(sweep):
    design = json.loads((sweep / "sweep.json").read_text())
    design["trials"][0]["attempts"] = 3
    (sweep / "sweep.json").write_text(json.dumps(design))
    summary = summarise(read_sweep(sweep))
    standard, ours = summary.to_dict()["tally"]
    counted = ("planned", "finished", "diverged", "failed", "retried", "retries")
    assert [standard[name] for name in counted] == [3, 2, 0, 1, 1, 2]
    assert [ours[name] for name in counted] == [3, 2, 1, 0, 0, 0]
    assert standard["step0_accuracy"] == pytest.approx({"mean": 0.01, "min": 0.01, "max": 0.01})
    note = "1 run was interrupted or lost and went on with the same seed (standard 1)"
    assert note in summary.notes
    assert "0.010 to 0.010" in render_report(summary)


def test_no_retries_no_note(sweep):
    assert retry_note(tally(read_sweep(sweep))) is None


ARMS = [f"arm{number}" for number in range(9)]


def test_curves_of_many_arms_have_a_panel_each_with_the_baseline(tmp_path):
    results = read_sweep(write_sweep(tmp_path, {arm: [0.5, 0.6] for arm in ARMS}))
    many = curve_plot(results.curves, "loss", ARMS, "training loss")
    for arm in ARMS[1:]:
        assert f">{arm}<" in many
    assert ">grey: arm0<" in many
    few = curve_plot(results.curves, "loss", ARMS[:3], "training loss")
    assert "grey:" not in few
    assert all(f">{arm}<" in few for arm in ARMS[:3])


def test_only_the_baseline_is_grey():
    tints = plots.colours(ARMS)
    assert tints["arm0"] == plots.COLOURS[0]
    assert all(tints[arm] != plots.COLOURS[0] for arm in ARMS[1:])


def test_markdown_and_page_and_json_are_written_together(sweep):
    compare_sweep(sweep, console=Console(quiet=True))
    text = (sweep / "report.md").read_text()
    content = json.loads((sweep / "summary.json").read_text())
    for sentence in content["sentences"]:
        assert f"- {escaped(sentence)}" in text
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# sweep",
        "## accuracy (higher is better)",
        "## NELBO per token (nats) (lower is better, secondary)",
        "## Spread between seeds",
        "## Settings that differ",
        "## Runs",
        "## Notes",
    ]


def test_markdown_tables_hold_the_terminals_cells(tmp_path):
    folder = write_sweep(tmp_path, {"standard": [0.5, 0.6, 0.52], "ours": [0.6, 0.7, 0.66]})
    measure_noise(folder, {"standard": (float("nan"), 1.0, 2.0), "ours": (1.0, 1.0, 2.0)})
    summary = summarise(read_sweep(folder))
    text = render_markdown(summary)
    verdict = summary.comparisons[0].verdict
    for row in verdict.arms:
        for cell in cells(verdict, row):
            assert escaped(cell.main) in text
            assert escaped(cell.detail) in text
    assert "## Noise of training" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_what_comes_from_the_runs_cannot_break_markdown():
    assert markdown_table([("a", "b")], [[Cell("x|y\nz", "<b>")], [Cell("_m_", "")]]) == (
        "| a<br>b |\n| --- |\n| x\\|y z<br>&lt;b&gt; |\n| \\_m\\_ |"
    )
