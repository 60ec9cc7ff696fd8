"""The contract of a task."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PAGE_ROWS = 500
"""Rows of one page of a generated task."""


@dataclass(frozen=True)
class Example:
    """One row, ready to be tokenized."""

    prompt: str
    """What the model sees."""
    response: str
    """What it learns to write; not empty, without an end-of-text mark."""
    reference: Mapping[str, Any] = field(default_factory=dict)
    """What scoring needs; must survive a round trip through JSON."""
    id: str = ""
    """The row's own name; empty takes the place it was read from (`train.jsonl:17`)."""


@dataclass(frozen=True)
class TaskSpec:
    """A task with its settings filled in.

    `example`, `extract` and `score` are pure functions. They raise `DataError` or
    `ConfigurationError` without saying where the row was: the caller knows and adds it.
    """

    name: str
    """Name as in `task.name`."""
    example: Callable[[Mapping[str, Any]], Example]
    """Raw row -> example."""
    extract: Callable[[str], str | None]
    """Text of a response -> the answer in it, or None where there is none."""
    score: Callable[[str, Mapping[str, Any]], float]
    """(text of a response, reference) -> 1.0 for right, 0.0 for wrong."""
    generate: Callable[[int, int], Sequence[Mapping[str, Any]]] | None = None
    """(seed, page number) -> the `PAGE_ROWS` raw rows of that page; None for a task without a
    generator. A pure function, so that pages can be made in any order and on any machine."""
    delimiters: tuple[str, ...] = ()
    """Regular expressions of the answer delimiters, searched in the response."""
    syntax: tuple[str, ...] = ()
    """Regular expressions of the syntax, such as HTML tags, searched in the prompt."""
    counts: Callable[[str, Mapping[str, Any]], Mapping[str, float]] | None = None
    """(text of a response, reference) -> counts of that item, such as how many of its several
    answers are right; None where right or wrong says all."""
    figures: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Figures beside accuracy: name -> (numerator, denominator), both names of `counts`, each
    summed over the items (precision, recall and F1 of several answers are such ratios)."""
    files: tuple[str, ...] = ()
    """Files beside the rows that examples are made of, such as tables: prepared data depends on
    what is in them."""
