"""What the arms had to compute stands beside their verdicts, and so does what the seeds varied."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from synthetic_sweep import write_sweep

from raymdm.compare import compare_sweep

SCORES = {"plain": [0.30, 0.32, 0.31], "mirror": [0.33, 0.35, 0.36], "slow": [0.3, "diverged", 0.4]}
COUNTED = {"plain": (6400, 6400, 0), "mirror": (16896, 12800, 4096), "slow": (6450, 6450, 0)}


def _compared(folder: Path, counted: bool = True, **design: Any) -> tuple[dict[str, Any], str, str]:
    """`summary.json`, the terminal's text and the page of a sweep whose runs counted."""
    write_sweep(folder, SCORES, **design)
    for file in (folder / "runs").glob("*/status.json"):
        if counted:
            arm = file.parent.name.split("-")[1]
            passes = dict(
                zip(("forwards", "backwards", "probe_forwards"), COUNTED[arm], strict=True)
            )
            file.write_text(json.dumps({**json.loads(file.read_text()), **passes}))
    text = io.StringIO()
    summary = compare_sweep(folder, console=Console(file=text, width=120))
    return summary, text.getvalue(), (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, str]:
    return _compared(tmp_path_factory.mktemp("sweep") / "sweep", vary=["mask", "time"])


def test_compute_per_arm_is_in_the_summary(compared: tuple[dict[str, Any], str, str]) -> None:
    rows = {row["arm"]: row for row in compared[0]["compute"]}
    assert list(rows) == ["plain", "mirror", "slow"]
    assert rows["mirror"]["forwards"] == 16896
    assert rows["mirror"]["backwards"] == 12800
    assert rows["mirror"]["probe_forwards"] == 4096
    assert rows["mirror"]["forwards_ratio"] == pytest.approx(2.64)
    assert rows["plain"]["seconds"] == 12.5


def test_compute_is_shown_in_the_terminal_and_on_the_page(
    compared: tuple[dict[str, Any], str, str],
) -> None:
    _, text, page = compared
    for shown in (text, page):
        assert "compute per run" in shown
        assert all(value in shown for value in ("16,896", "4,096", "12,800", "2.64 ×"))


def test_unequal_compute_is_said(compared: tuple[dict[str, Any], str, str]) -> None:
    """Below two percent it is equal enough."""
    notes = compared[0]["notes"]
    assert "unequal compute, in forwards of plain: mirror 2.64 ×" in notes


def test_what_the_seeds_varied_is_said(compared: tuple[dict[str, Any], str, str]) -> None:
    summary, _, page = compared
    assert summary["varied"] == ["mask", "time"]
    assert any(note.startswith("the seeds vary mask, time only") for note in summary["notes"])
    assert "the seeds vary mask, time only" in page


def test_runs_that_did_not_count_have_no_table(tmp_path: Path) -> None:
    summary, text, page = _compared(tmp_path / "sweep", counted=False)
    assert summary["compute"] == []
    assert summary["varied"] is None
    assert not any("seeds vary" in note or "compute" in note for note in summary["notes"])
    assert "compute per run" not in text + page
