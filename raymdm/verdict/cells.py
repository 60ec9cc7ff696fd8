"""A cell of a verdict's tables, the same for the terminal and for the report."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """A cell: the number that is read first, and the smaller line below it."""

    main: str
    detail: str = ""
