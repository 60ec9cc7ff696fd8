"""One look at every row of a fragment before a run: is it usable, and what does the fragment hold?

Only facts about the fragment leave a scan, nothing about single rows.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from raymdm.data.fragment import (
    Fragment,
    parquet_table,
    read_lines,
    rows_table,
    whole_lines,
)
from raymdm.data.jsonl import RowError, check_row
from raymdm.data.schema import MARKS


@dataclass(frozen=True)
class Scanned:
    """What a scan found.

    Attributes:
        fragment: with its facts; `first_line` is known only when those before it are scanned.
        lines: of the fragment, blank ones too.
        reason: what is wrong with the first bad row, if there is one.
    """

    fragment: Fragment
    lines: int
    reason: str | None


def scan(fragment: Fragment, vocabulary_size: int) -> Scanned:
    """Check every row of a fragment.

    Raises:
        DataError: the file as a whole cannot be read.
    """
    fragment = whole_lines(fragment)
    if fragment.kind == "parquet":
        # Columns are checked as a whole; only where something is wrong, row by row.
        table = parquet_table(fragment)
        if table is not None and _all_good(table, vocabulary_size):
            return Scanned(_described(fragment, table, ()), len(table), None)
    rows, bad = [], []
    reason = None
    lines = read_lines(fragment)
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            rows.append(check_row(line, vocabulary_size))
        except RowError as error:
            bad.append(number)
            reason = reason or str(error)
    return Scanned(_described(fragment, rows_table(rows), tuple(bad)), len(lines), reason)


def bad_lines(fragment: Fragment, vocabulary_size: int) -> list[tuple[int, str, str]]:
    """Number in the file (from 1), reason and text of the lines that a scan left out."""
    lines, found = read_lines(fragment), []
    for number in fragment.bad:
        try:
            check_row(lines[number], vocabulary_size)
        except RowError as error:
            text = lines[number].decode("utf-8", errors="replace")
            found.append((fragment.first_line + number + 1, str(error), text))
    return found


def _described(fragment: Fragment, table: pa.Table, bad: tuple[int, ...]) -> Fragment:
    digest = hashlib.blake2b(digest_size=16)
    for name in table.column_names:
        values, lengths = _flat(table[name])
        digest.update(values.astype(np.int64).tobytes())
        digest.update(lengths.astype(np.int64).tobytes())
    tokens, lengths = _flat(table["input_ids"])
    return replace(
        fragment,
        rows=len(table),
        tokens=len(tokens),
        longest=int(lengths.max(initial=0)),
        marks=tuple(mark for mark in MARKS if len(_flat(table[mark])[0])),
        bad=bad,
        content=digest.hexdigest(),
    )


def _all_good(table: pa.Table, vocabulary_size: int) -> bool:
    """What `check_row` says, of all rows at once."""
    if table["input_ids"].null_count or table["prompt_length"].null_count:
        return False
    tokens, lengths = _flat(table["input_ids"])
    prompts = table["prompt_length"].to_numpy()
    parts = {"delimiters": (prompts, lengths), "syntax": (np.zeros_like(prompts), prompts)}
    good = [(prompts >= 0) & (prompts < lengths), (tokens >= 0) & (tokens < vocabulary_size)]
    for mark, (first, stop) in parts.items():
        positions, counts = _flat(table[mark])
        good.append(positions >= np.repeat(first, counts))
        good.append(positions < np.repeat(stop, counts))
    # A null in a list is NaN here, which compares as false.
    return all(bool(part.all()) for part in good)


def _flat(column: Any) -> tuple[np.ndarray, np.ndarray]:
    """All values of a column, and how many each row has (of null: none; of a number: one)."""
    if not pa.types.is_list(column.type):
        values = column.to_numpy()
        return values, np.ones(len(values), dtype=np.int64)
    values = pa.chunked_array([c.flatten() for c in column.chunks], column.type.value_type)
    lengths = [c.value_lengths().fill_null(0) for c in column.chunks]
    return values.to_numpy(), pa.chunked_array(lengths, pa.int32()).to_numpy()
