"""Every row of the real files becomes an example, and its own answer is right."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raymdm.config.data import TaskSection
from raymdm.data.sources import Row, open_source
from raymdm.errors import DataError
from raymdm.tasks import Example, TaskSpec, get_task
from raymdm.tasks.grid import keeps, small_grids
from raymdm.tasks.math_answers import CHECKER

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
# A file, its task, its rows, and a response that is wrong for every one of them.
FILES = [
    ("gsm8k/test.jsonl", "gsm8k", 1319, "#### 0.123"),
    ("math500/test.jsonl", "math500", 500, r"\boxed{\text{nothing of the kind}}"),
    ("countdown/countdown_cd3_test.jsonl", "countdown", 256, "<answer>1 + 1</answer>"),
    ("sudoku4x4/4x4_test_sudoku.csv", "sudoku", 500, "<answer>" + "1234" * 4 + "</answer>"),
    ("sudoku4x4/train_20000.csv", "sudoku", 20000, "<answer>" + "1234" * 4 + "</answer>"),
    ("hitab/dev_samples.jsonl", "hitab", 1671, r"\boxed{nothing of the kind}"),
    ("hitab/test_samples.jsonl", "hitab", 1584, r"\boxed{nothing of the kind}"),
    ("hitab/train_samples_partial.jsonl", "hitab", 7417, r"\boxed{nothing of the kind}"),
]
LONG = {"sudoku4x4/train_20000.csv", "hitab/dev_samples.jsonl", "hitab/train_samples_partial.jsonl"}


def the_task(name: str) -> TaskSpec:
    tables = [str(DATA / f"hitab/tables_{split}.jsonl") for split in ("train", "dev", "test")]
    return get_task(TaskSection(name=name, options={"tables": tables} if name == "hitab" else {}))


def rows(file: str, task: TaskSpec) -> Iterator[Row]:
    source = open_source(str(DATA / file), "prepare.test", None, "test")
    for chunk in source.chunks():
        yield from source.read(chunk, task)


def examples(file: str, task: TaskSpec) -> Iterator[tuple[Example, Any]]:
    """Examples, with their references as evaluation will read them."""
    for row in rows(file, task):
        example = task.example(row.fields)
        yield example, json.loads(json.dumps(example.reference))


@pytest.mark.parametrize(
    ("file", "name", "count", "wrong"),
    [pytest.param(*one, marks=pytest.mark.slow if one[0] in LONG else ()) for one in FILES],
)
def test_every_row_is_an_example_with_a_right_response_and_a_wrong_one(
    file: str, name: str, count: int, wrong: str
) -> None:
    task = the_task(name)
    found = list(examples(file, task))
    assert len(found) == count
    for example, reference in found:
        assert example.prompt.strip()
        assert task.score(example.response, reference) == 1.0, example.response
    for example, reference in found[:: 1 + count // 60]:
        assert task.score(wrong, reference) == 0.0, example.response
        assert task.score("", reference) == 0.0
        assert task.extract(wrong) is not None
        assert task.extract("") is None


def agrees(gold: str, latex: str) -> bool:
    """As the checker alone says, without the short cut for equal texts."""
    return CHECKER.ask([gold, latex]).value is True


def math_rows() -> list[tuple[str, str]]:
    task = the_task("math500")
    return [
        (row.fields["answer"], task.extract(row.fields["solution"]) or "")
        for row in rows("math500/test.jsonl", task)
    ]


def check_math(pairs: list[tuple[str, str]]) -> None:
    for gold, solved in pairs:
        assert agrees(gold, gold), gold
        assert agrees(gold, solved), (gold, solved)
        if gold.isdigit():
            assert not agrees(gold, str(int(gold) + 1)), gold


def test_math_answers_agree_with_themselves_and_with_their_solutions() -> None:
    check_math(math_rows()[::9])


@pytest.mark.slow
def test_all_math_answers_agree_with_themselves_and_with_their_solutions() -> None:
    check_math(math_rows())


def test_the_boxed_answer_of_a_solution_is_the_answer_that_the_file_gives() -> None:
    """Extraction alone, for all 500: only white space and LaTeX spacing may differ."""
    different = [
        (gold, solved)
        for gold, solved in math_rows()
        if "".join(gold.split()).replace("\\!", "") != "".join(solved.split()).replace("\\!", "")
    ]
    assert different == []


def test_sudokus_with_several_solutions_are_scored_by_the_rules() -> None:
    task = the_task("sudoku")
    several = 0
    for _, reference in examples("sudoku4x4/4x4_test_sudoku.csv", task):
        puzzle, solution = reference["puzzle"], reference["solution"]
        fitting = [grid for grid in small_grids() if keeps(grid, puzzle) and grid != solution]
        assert all(task.score(f"<answer>{grid}</answer>", reference) == 1.0 for grid in fitting)
        several += bool(fitting)
    assert several == 124


def test_the_row_of_the_quality_check_without_a_question_is_named() -> None:
    task = the_task("hitab")
    refused = []
    for row in rows("hitab/test_samples_qualitycheck.jsonl", task):
        try:
            task.example(row.fields)
        except DataError as error:
            refused.append((row.id, str(error)))
    assert refused == [
        (
            "test_samples_qualitycheck.jsonl:479",
            "field 'question' must be a text, found list ['2016']",
        )
    ]
