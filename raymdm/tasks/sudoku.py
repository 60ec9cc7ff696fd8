"""Sudoku, scored by its rules: any grid that keeps the given cells and is complete is right.

Fields `Puzzle` and `Solution` (d1's CSV files): texts, row by row, `0` for a blank. Side 4 or 9
(16 and 25 with letters). `prepare.train: generate` makes puzzles of side 4 with one solution each.
"""

import random
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import Field

from raymdm.config.data import TaskSection
from raymdm.config.section import Section
from raymdm.errors import DataError
from raymdm.tasks.extraction import last_tagged
from raymdm.tasks.grid import BLANKS, SYMBOLS, is_complete, keeps, side_of, small_grids
from raymdm.tasks.options import read_options
from raymdm.tasks.reasoning import page_seed
from raymdm.tasks.spec import PAGE_ROWS, Example, TaskSpec
from raymdm.tasks.template import fill_template, templates, text_field

PROMPT = (
    "Solve this Sudoku of side {side}, in which 0 is a blank cell. Write the completed grid in "
    "<answer> </answer>.\n{grid}\n"
)
RESPONSE = "<answer>\n{solution_grid}\n</answer>"
DELIMITER = "</?answer>"
# A grid without tags: lines of digits, with what people draw between them.
_GRID = re.compile(r"\d[\d\s|,+-]*")


class Options(Section):
    """Of generated puzzles; given rows do not read them."""

    blanks: int = Field(default=8, ge=1, le=12)
    """Blank cells of the 16; with 12 only few puzzles still have one solution."""


def make(section: TaskSection) -> TaskSpec:
    """The task. The templates know `{puzzle}` and `{solution}` (one line), `{grid}` and
    `{solution_grid}` (a line for each row, cells apart), `{side}` and the row's own fields.

    Raises:
        ConfigurationError: an unknown option or a broken template.
    """
    options = read_options(section, Options)
    prompt, response = templates(section, PROMPT, RESPONSE)

    def example(row: Mapping[str, Any]) -> Example:
        puzzle, solution = _puzzle(row), text_field(row, "Solution").strip().upper()
        if not keeps(solution, puzzle) or not is_complete(solution):
            raise DataError(f"field 'Solution': {solution} does not solve the puzzle {puzzle}")
        values = {
            **row,
            "puzzle": puzzle,
            "solution": solution,
            "grid": lines(puzzle),
            "solution_grid": lines(solution),
            "side": side_of(puzzle),
        }
        return Example(
            prompt=fill_template(prompt, values, "task.prompt_template"),
            response=fill_template(response, values, "task.response_template"),
            reference={"puzzle": puzzle, "solution": solution},
        )

    def generate(seed: int, page: int) -> list[Mapping[str, Any]]:
        source = random.Random(page_seed(seed, page))
        return [_draw(source, options.blanks) for _ in range(PAGE_ROWS)]

    return TaskSpec(
        "sudoku",
        example,
        extract,
        score,
        generate,
        delimiters=(DELIMITER,),
        counts=counts,
        figures={"blanks_right": ("blanks_right", "blanks")},
    )


def extract(text: str) -> str | None:
    """The cells of the grid in a response, without what stands between them.

    Read in the last `<answer>…</answer>`; without tags, from the last run of digits that has the
    size of a grid.
    """
    tagged = last_tagged(text)
    if tagged is not None:
        return "".join(c for c in tagged.upper() if c.isalnum() or c in BLANKS) or None
    runs = ["".join(filter(str.isdigit, run)) for run in _GRID.findall(text)]
    return next((run for run in reversed(runs) if side_of(run)), None)


def score(text: str, reference: Mapping[str, Any]) -> float:
    """1.0 for a complete grid that keeps the given cells, whatever `Solution` says."""
    cells = extract(text)
    return float(cells is not None and keeps(cells, reference["puzzle"]) and is_complete(cells))


def counts(text: str, reference: Mapping[str, Any]) -> Mapping[str, float]:
    """Blanks of the puzzle, and how many are right.

    All are in a solved grid, else those that agree with `Solution`; none in an answer of another
    size.
    """
    puzzle, solution = reference["puzzle"], reference["solution"]
    blanks = [place for place, cell in enumerate(puzzle) if cell in BLANKS]
    cells = extract(text) or ""
    if score(text, reference):
        right = len(blanks)
    elif len(cells) == len(puzzle):
        right = sum(cells[place] == solution[place] for place in blanks)
    else:
        right = 0
    return {"blanks": float(len(blanks)), "blanks_right": float(right)}


def lines(cells: str) -> str:
    """The grid as people write it: a line for each row, a space between cells."""
    side = side_of(cells)
    assert side is not None
    return "\n".join(" ".join(cells[at : at + side]) for at in range(0, len(cells), side))


def _puzzle(row: Mapping[str, Any]) -> str:
    if isinstance(row.get("Puzzle"), int):
        raise DataError(
            "field 'Puzzle' must be a text, found a number: its leading zeros are lost; read the "
            "puzzles from a .csv file, or write them as texts"
        )
    puzzle = text_field(row, "Puzzle").strip().upper()
    side = side_of(puzzle)
    if side is None or set(puzzle) - set(SYMBOLS[:side]) - set(BLANKS):
        raise DataError(
            f"field 'Puzzle': {puzzle!r} is no grid of 16 or 81 cells, digits with 0 for a blank"
        )
    return puzzle


@lru_cache(maxsize=1)
def _having() -> dict[tuple[int, str], int]:
    """For every place and symbol the set of the small grids that have it there, as bits."""
    having: dict[tuple[int, str], int] = {}
    for number, cells in enumerate(small_grids()):
        for place in enumerate(cells):
            having[place] = having.get(place, 0) | 1 << number
    return having


def _draw(source: random.Random, blanks: int) -> dict[str, Any]:
    """A puzzle with one solution: cells are emptied in random order while it stays the only one."""
    having = _having()
    while True:
        solution = source.choice(small_grids())
        kept = set(range(16))
        for place in source.sample(range(16), 16):
            solutions = (1 << len(small_grids())) - 1
            for other in kept - {place}:
                solutions &= having[other, solution[other]]
            if solutions.bit_count() == 1:
                kept.remove(place)
            if len(kept) == 16 - blanks:
                puzzle = "".join(c if at in kept else "0" for at, c in enumerate(solution))
                return {"Puzzle": puzzle, "Solution": solution}
