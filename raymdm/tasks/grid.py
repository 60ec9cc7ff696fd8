"""Sudoku grids as texts, row by row: the rules, and all grids of side 4."""

import math
from functools import lru_cache
from itertools import permutations, product

SYMBOLS = "123456789ABCDEFGHIJKLMNOP"
"""What the cells of a grid of side n hold: the first n of them (n is 4, 9, 16 or 25)."""
BLANKS = "0."
"""How a blank cell is written."""


def side_of(cells: str) -> int | None:
    """The side of a grid with that many cells; None unless it is the square of 2, 3, 4 or 5."""
    side = math.isqrt(len(cells))
    fits = side * side == len(cells) and math.isqrt(side) ** 2 == side
    return side if fits and 4 <= side <= len(SYMBOLS) else None


@lru_cache(maxsize=8)
def groups(side: int) -> tuple[tuple[int, ...], ...]:
    """The places of every row, column and box of a grid of that side."""
    box = math.isqrt(side)
    places = range(side)
    rows = [tuple(side * row + column for column in places) for row in places]
    columns = [tuple(side * row + column for row in places) for column in places]
    corners = product(range(0, side, box), repeat=2)
    squares = [
        tuple(side * (top + row) + left + column for row, column in product(range(box), repeat=2))
        for top, left in corners
    ]
    return (*rows, *columns, *squares)


def is_complete(cells: str) -> bool:
    """Whether every row, column and box holds every symbol once."""
    side = side_of(cells)
    if side is None:
        return False
    wanted = set(SYMBOLS[:side])
    return all({cells[place] for place in group} == wanted for group in groups(side))


def keeps(cells: str, puzzle: str) -> bool:
    """Whether a grid has the puzzle's size and its given cells."""
    return len(cells) == len(puzzle) and all(
        given in BLANKS or cell == given for cell, given in zip(cells, puzzle, strict=True)
    )


@lru_cache(maxsize=1)
def small_grids() -> tuple[str, ...]:
    """All 288 complete grids of side 4, in the order of their texts."""
    rows = ["".join(row) for row in permutations(SYMBOLS[:4])]
    found: list[str] = []
    for two in product(rows, repeat=2):
        halves = "".join(two)
        if all(len({halves[p] for p in box}) == 4 for box in ((0, 1, 4, 5), (2, 3, 6, 7))):
            found.append(halves)
    return tuple(
        sorted(top + low for top, low in product(found, repeat=2) if is_complete(top + low))
    )
