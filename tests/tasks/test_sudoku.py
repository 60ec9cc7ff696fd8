from typing import Any

import pytest

from raymdm.config.data import TaskSection
from raymdm.errors import ConfigurationError, DataError
from raymdm.tasks import PAGE_ROWS, get_task
from raymdm.tasks.grid import groups, is_complete, keeps, side_of, small_grids
from raymdm.tasks.sudoku import extract

ROW = {"Puzzle": "3102200002100320", "Solution": "3142243142131324"}
REFERENCE = {"puzzle": ROW["Puzzle"], "solution": ROW["Solution"]}
NINE = "".join(
    "123456789"[(3 * row + row // 3 + column) % 9] for row in range(9) for column in range(9)
)


def test_there_are_288_grids_of_side_4() -> None:
    grids = small_grids()
    assert len(grids) == len(set(grids)) == 288
    assert all(is_complete(grid) for grid in grids)


def test_a_cell_belongs_to_a_row_a_column_and_a_box() -> None:
    for side in (4, 9):
        for place in range(side * side):
            assert sum(place in group for group in groups(side)) == 3
    assert (0, 1, 4, 5) in groups(4)
    assert (60, 61, 62, 69, 70, 71, 78, 79, 80) in groups(9)


@pytest.mark.parametrize(
    ("length", "side"), [(16, 4), (81, 9), (256, 16), (1, None), (36, None), (17, None)]
)
def test_the_side_of_a_grid(length: int, side: int | None) -> None:
    assert side_of("1" * length) == side


def test_breaking_any_one_rule_is_wrong() -> None:
    task = get_task("sudoku")
    by_rows = "1234" * 4  # columns and boxes broken
    latin = "1234234134124123"  # only boxes broken
    assert not is_complete(by_rows)
    assert not is_complete(latin)
    assert task.score(f"<answer>{ROW['Solution']}</answer>", REFERENCE) == 1.0
    for grid in (by_rows, latin, ROW["Puzzle"], ROW["Solution"][:-1], ROW["Solution"] + "1"):
        assert task.score(f"<answer>{grid}</answer>", REFERENCE) == 0.0
    other = next(grid for grid in small_grids() if not keeps(grid, ROW["Puzzle"]))
    assert task.score(f"<answer>{other}</answer>", REFERENCE) == 0.0, "givens were changed"


def test_another_solution_of_the_same_puzzle_is_right() -> None:
    first, second = small_grids()[:2]
    puzzle = "".join(a if a == b else "0" for a, b in zip(first, second, strict=True))
    reference = {"puzzle": puzzle, "solution": first}
    task = get_task("sudoku")
    assert task.counts is not None
    blanks = puzzle.count("0")
    assert task.score(f"<answer>{second}</answer>", reference) == 1.0
    counts = task.counts(f"<answer>{second}</answer>", reference)
    assert counts == {"blanks": blanks, "blanks_right": blanks}


def test_the_share_of_blanks_right() -> None:
    task = get_task("sudoku")
    assert task.counts is not None
    assert task.figures == {"blanks_right": ("blanks_right", "blanks")}
    last_blank = ROW["Puzzle"].rindex("0")
    nearly = ROW["Solution"][:last_blank] + "9" + ROW["Solution"][last_blank + 1 :]
    for text, right in ((nearly, 7), (ROW["Puzzle"], 0), (ROW["Solution"] + "1", 0), ("", 0)):
        counts = task.counts(f"<answer>{text}</answer>", REFERENCE)
        assert counts == {"blanks": 8, "blanks_right": right}


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("<answer>\n3 1 4 2\n2 4 3 1\n4 2 1 3\n1 3 2 4\n</answer>", ROW["Solution"]),
        ("<answer>3142|2431|4213|1324</answer>", ROW["Solution"]),
        ("<answer>1</answer> no: <answer>3142 2431 4213 1324</answer>", ROW["Solution"]),
        ("3 1 | 4 2\n2 4 | 3 1\n----+----\n4 2 | 1 3\n1 3 | 2 4", ROW["Solution"]),
        ("The puzzle 3102200002100320 becomes 3142243142131324.", ROW["Solution"]),
        ("In 12 steps:\n3142243142131324", ROW["Solution"]),
        ("<answer>310.</answer>", "310."),
        ("<answer></answer>", None),
        ("1 2 3 4", None),
        ("", None),
    ],
)
def test_the_grid_of_a_response(text: str, cells: str | None) -> None:
    assert extract(text) == cells


def test_side_9() -> None:
    task = get_task("sudoku")
    row = {"Puzzle": "".join(c if at % 3 else "0" for at, c in enumerate(NINE)), "Solution": NINE}
    example = task.example(row)
    assert "side 9" in example.prompt
    assert task.score(example.response, example.reference) == 1.0
    assert task.score(example.response.replace("9", "8"), example.reference) == 0.0


def test_the_example_shows_the_grid_as_people_write_it() -> None:
    example = get_task("sudoku").example(ROW)
    assert example.prompt.endswith("\n3 1 0 2\n2 0 0 0\n0 2 1 0\n0 3 2 0\n")
    assert example.response == "<answer>\n3 1 4 2\n2 4 3 1\n4 2 1 3\n1 3 2 4\n</answer>"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"Puzle": "0", "Solution": "1"}, "'Puzzle' is missing; did you mean 'Puzle'"),
        ({**ROW, "Puzzle": 3102200002100320}, "'Puzzle' must be a text.*leading zeros are lost"),
        ({**ROW, "Puzzle": "31022"}, "'31022' is no grid of 16 or 81 cells"),
        ({**ROW, "Puzzle": "5102200002100320"}, "is no grid of 16 or 81 cells"),
        ({**ROW, "Solution": "1234" * 4}, "'Solution': 1234.* does not solve the puzzle 3102"),
        ({**ROW, "Solution": small_grids()[0]}, "does not solve the puzzle"),
        ({"Puzzle": ROW["Puzzle"]}, "'Solution' is missing"),
    ],
)
def test_bad_rows(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        get_task("sudoku").example(row)


@pytest.mark.parametrize("blanks", [1, 8, 12])
def test_generated_puzzles_have_exactly_one_solution(blanks: int) -> None:
    task = get_task(TaskSection(name="sudoku", options={"blanks": blanks}))
    assert task.generate is not None
    page = task.generate(5, 2)
    assert len(page) == PAGE_ROWS
    assert page == task.generate(5, 2) != task.generate(5, 3)
    for row in page[:60]:
        assert row["Puzzle"].count("0") == blanks
        solutions = [grid for grid in small_grids() if keeps(grid, row["Puzzle"])]
        assert solutions == [row["Solution"]]
        example = task.example(row)
        assert task.score(example.response, example.reference) == 1.0
    assert len({row["Solution"] for row in page}) > 200, "of all 288 grids"


def test_more_blanks_than_one_solution_allows_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"task\.options\.blanks"):
        get_task(TaskSection(name="sudoku", options={"blanks": 13}))
