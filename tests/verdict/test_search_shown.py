"""A sweep's verdict shows how settings were chosen, and puts first what it was asked."""

import json
from pathlib import Path
from typing import Any

import pytest
from synthetic_sweep import write_sweep

from raymdm.errors import DataError
from raymdm.verdict import read_sweep, summarise
from raymdm.verdict.markdown import render_markdown
from raymdm.verdict.report import render_report
from raymdm.verdict.search import edge_notes, read_search, search_cells

KEY = "training.learning_rate"


def _candidate(arm: str, rate: float, state: str, scores: list[float | None]) -> dict[str, Any]:
    settings = {KEY: rate}
    return {"arm": arm, "number": 0, "settings": settings, "state": state, "scores": scores}


def _write(folder: Path) -> None:
    candidates = [
        _candidate("standard", 0.001, "complete", [1.5, 1.7]),
        _candidate("standard", 0.003, "complete", [1.0, 1.2]),
        _candidate("standard", 0.01, "diverged", [None, None]),
        _candidate("ours", 0.001, "complete", [0.5, 0.7]),
        _candidate("ours", 0.003, "stopped", [0.4, 0.4]),
        _candidate("ours", 0.01, "complete", [1.0, 1.0]),
    ]
    question = {"seeds": [100, 101], "arms": ["standard", "ours"]}
    content = {"question": question, "candidates": candidates}
    (folder / "search.json").write_text(json.dumps(content))


def test_the_best_mean_of_those_trained_to_the_end_is_the_chosen_one(tmp_path: Path) -> None:
    _write(tmp_path)
    standard, ours = read_search(tmp_path)
    assert (standard["chosen"], standard["score"]) == ({KEY: 0.003}, 1.1)
    assert ours["chosen"] == {KEY: 0.001}  # the stopped one was better, but not at the end
    assert [cell.main for cell in search_cells(standard)] == [
        "standard",
        "3 × 2",
        "learning_rate 0.003",
        "1.1000",
        "learning_rate 0.001: 1.6000; learning_rate 0.01: diverged",
    ]


def test_a_choice_at_the_edge_of_what_was_tried_is_said(tmp_path: Path) -> None:
    _write(tmp_path)
    (note,) = edge_notes(read_search(tmp_path))
    assert note.startswith(f"{KEY}: ours took the least value tried")


def test_nothing_searched_is_nothing_shown(tmp_path: Path) -> None:
    assert read_search(tmp_path) == []


def test_a_broken_file_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "search.json").write_text('{"question": {}}')
    with pytest.raises(DataError, match=r"search.json: not as `raymdm sweep` writes it"):
        read_search(tmp_path)


def test_page_and_markdown_show_the_choice_and_the_question_first(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, {"standard": [0.5, 0.6, 0.7], "ours": [0.6, 0.7, 0.8]})
    _write(folder)
    file = folder / "sweep.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "question": "spread"}))
    summary = summarise(read_sweep(folder))
    assert summary.asked_spreads
    first = summary.asked_spreads[0].sentence
    text = render_markdown(summary)
    assert "## Settings chosen" in text
    assert text.index("the seeds of") < text.index("against standard on accuracy")
    page = render_report(summary)
    assert "Settings chosen" in page
    assert page.index("what the runs were made to compare") < page.index("Accuracy")
    assert summary.to_dict()["question"] == "spread"
    assert any("verdicts on means stand beside them" in note for note in summary.notes)
    assert first.startswith("the seeds of")
