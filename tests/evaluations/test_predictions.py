"""Predictions made elsewhere find their gold: by id, else by index, in several formats."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from raymdm.errors import DataError
from raymdm.evaluations.predictions import Predictions, read_predictions
from raymdm.tasks import Example, TaskSpec, get_task

GSM8K = get_task("gsm8k")


def write(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def read(
    folder: Path, predictions: list[Any], gold: list[Any] | None = None, task: TaskSpec = GSM8K
) -> Predictions:
    file = write(folder / "predictions.jsonl", *predictions)
    return read_predictions(
        file, None if gold is None else write(folder / "gold.jsonl", *gold), task
    )


def scores(found: Predictions, task: TaskSpec = GSM8K) -> dict[str, float]:
    return {item.id: task.score(item.text, item.reference) for item in found.items}


GOLD = [
    {"id": "a", "question": "q", "answer": "so #### 4"},
    {"id": "b", "question": "r", "answer": "so #### 5"},
    {"id": "c", "question": "s", "answer": "so #### 6"},
]


@pytest.mark.parametrize("field", ["response", "prediction", "output", "text"])
def test_rows_are_merged_by_id_whatever_their_order(field: str, tmp_path: Path) -> None:
    rows = [{"id": "c", field: "it is 6"}, {"id": "x", field: "9"}, {"id": "a", field: "#### 5"}]
    found = read(tmp_path, rows, GOLD)
    assert scores(found) == {"c": 1.0, "a": 0.0}
    assert [item.id for item in found.items] == ["c", "a"]
    assert found.items[0].reference == GSM8K.example(GOLD[2]).reference
    assert (found.without_gold, found.without_prediction) == (1, 1)


def test_rows_without_ids_are_merged_by_index(tmp_path: Path) -> None:
    gold = [{key: row[key] for key in ("question", "answer")} for row in GOLD]
    found = read(tmp_path, [{"text": "4"}, "", {"text": "6"}, {"text": "6"}], gold)
    assert scores(found) == {"0": 1.0, "1": 0.0, "2": 1.0}
    # StableDLLM's predictions name the index.
    found = read(tmp_path, [{"meta": {"index": 2}, "prediction": "6"}], gold)
    assert scores(found) == {"2": 1.0}
    assert found.without_prediction == 2


@pytest.mark.parametrize("field", ["gold_raw", "answer", "output", "ground_truth"])
@pytest.mark.parametrize("question", ["prompt", "question", "input"])
def test_stabledllm_gold_rows_are_read(field: str, question: str, tmp_path: Path) -> None:
    gold = [{"meta": {"id": 7, "index": 0}, question: "q", field: "so #### 4"}]
    found = read(tmp_path, [{"id": 7, "prediction": "4"}], gold)
    assert scores(found) == {"7": 1.0}
    assert found.items[0].reference["answer"] == "so #### 4"
    assert found.items[0].reference["question"] == "q"


def test_rows_may_hold_prediction_and_gold(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        [
            {"prediction": "18", "groundtruth": "18"},
            {"output": "so 3", "gold_raw": "#### 4", "prompt": "q", "gt_meta": {}},
            {"response": "4", "reference": {"answer": "#### 4"}},
            {"response": "4", "reference": '{"answer": "#### 5"}'},
            {"output": "4", "ground_truth": "so #### 5", "prompt": "q"},
        ],
    )
    assert scores(found) == {"0": 1.0, "1": 0.0, "2": 1.0, "3": 0.0, "4": 0.0}


def answers_task() -> TaskSpec:
    """Several answers, as HiTab's; its raw rows need a table."""

    def example(row: Any) -> Example:
        if "table" not in row:
            raise DataError("field 'table' is missing")
        return Example("q", "r", {"answers": row["answer"]})

    def score(text: str, reference: Any) -> float:
        found = re.findall(r"[^|{}]+", text.removeprefix("\\boxed"))
        return float([part.strip() for part in found] == list(map(str, reference["answers"])))

    return TaskSpec("lists", example, lambda text: text or None, score)


def test_lists_of_extracted_answers_are_read(tmp_path: Path) -> None:
    task = answers_task()
    rows = [
        {"prediction": ["1.5", "men"], "groundtruth": [["1.5", "men"]]},
        {"prediction": ["1.5"], "groundtruth": ["1.5"]},
        {"prediction": [], "groundtruth": [["2"]]},
    ]
    found = read(tmp_path, rows, task=task)
    assert scores(found, task) == {"0": 1.0, "1": 1.0, "2": 0.0}
    assert [item.text for item in found.items] == ["\\boxed{1.5 | men}", "\\boxed{1.5}", ""]
    gold = [{"table": "t", "answer": [3]}]
    assert scores(read(tmp_path, [{"prediction": ["3"]}], gold, task), task) == {"0": 1.0}
    several = [{"prediction": ["1"], "groundtruth": [["1"], ["2"]]}]
    with pytest.raises(DataError, match=r"line 1: no gold for the task lists"):
        read(tmp_path, several, task=task)


def boxed_task() -> TaskSpec:
    """The gold's field is `solution`; `answer`, where there is one, goes before it."""

    def example(row: Any) -> Example:
        if "solution" not in row or not row["problem"]:
            raise DataError("field 'solution' is missing")
        return Example("q", "r", {"answer": row.get("answer", row["solution"].split()[-1])})

    return TaskSpec("boxed", example, str, lambda text, reference: text == reference["answer"])


def test_only_the_fields_that_a_task_needs_are_filled_in(tmp_path: Path) -> None:
    gold = [{"prompt": "q", "gold_raw": "in all 4"}]
    found = read(tmp_path, [{"text": "4"}], gold, boxed_task())
    assert found.items[0].reference == {"answer": "4"}


A4, A5 = {"id": "a", "text": "4"}, {"id": "a", "text": "5"}
BROKEN: list[tuple[list[Any], list[Any], str]] = [
    ([A4, A5], GOLD, "predictions.jsonl, line 2: the id 'a' is there twice, first at .*line 1"),
    ([A4], [GOLD[0], "", GOLD[0]], "gold.jsonl, line 3: the id 'a' is there twice"),
    ([A4, {"text": "5"}], GOLD, "predictions.jsonl, line 2: no id, unlike"),
    ([{"text": "4"}, A5], GOLD, "predictions.jsonl, line 2: an id, unlike"),
    ([{"id": "a", "say": "4"}], GOLD, "line 1: no prediction in it; .*found: id, say"),
    ([{**A4, "id": "z"}], GOLD, "none of its ids .*'z'.* is in .*gold.jsonl .*'a'"),
    ([A4], [{"id": "a", "question": "q"}], "gold.jsonl, line 1: no gold for the task gsm8k"),
    ([A4], [{"id": "a", "reference": "{"}], "gold.jsonl, line 1, field 'reference': not valid"),
    (["[1]"], GOLD, "predictions.jsonl, line 1: expected an object, found list"),
    (["{"], GOLD, "predictions.jsonl, line 1: not valid JSON"),
    ([""], GOLD, "predictions.jsonl: the file has no rows"),
]


@pytest.mark.parametrize(("predictions", "gold", "message"), BROKEN)
def test_what_is_broken_is_one_line_with_its_place(
    predictions: list[Any], gold: list[Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, predictions, gold)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.jsonl: cannot be read"):
        read_predictions(tmp_path / "none.jsonl", None, GSM8K)
