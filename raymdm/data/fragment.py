"""Pieces of files that are read alone: a range of lines, a whole gzip file, a Parquet row group.

A gzip file cannot be entered in the middle, so it is one fragment, and in memory as a whole while
it is read: many files of some ten megabytes are better than one large one.
"""

import json
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raymdm.data.files import DataFile, Kind, open_file, unreadable
from raymdm.data.schema import MARKS
from raymdm.errors import DataError

_TOKENS = pa.list_(pa.int32())
SCHEMA = pa.schema(
    [("input_ids", _TOKENS), ("prompt_length", pa.int64()), *((mark, _TOKENS) for mark in MARKS)]
)
"""Columns of decoded rows; a row without marks has null there."""


@dataclass(frozen=True)
class Fragment:
    """Rows that are read together, and what a scan found in them.

    Attributes:
        path: of the file.
        kind: of the file.
        start: where it begins: a byte, or the number of a row group.
        size: bytes, or the rows of a row group.
        first_line: lines (of Parquet: rows) of the file before it.
        rows: that count: neither blank nor left out.
        tokens: of these rows.
        longest: tokens of the longest row.
        marks: which of the optional fields `MARKS` some row has.
        bad: numbers within the fragment, from 0, of lines that are left out.
        content: hash of the decoded rows, whatever kind of file they are in.
    """

    path: str
    kind: Kind
    start: int
    size: int
    first_line: int = 0
    rows: int = 0
    tokens: int = 0
    longest: int = 0
    marks: tuple[str, ...] = ()
    bad: tuple[int, ...] = ()
    content: str = ""

    def place(self, number: int) -> str:
        """File and line of one of its lines, as a message says it."""
        word = "row" if self.kind == "parquet" else "line"
        return f"{self.path}, {word} {self.first_line + number + 1}"


def cut(file: DataFile, fragment_bytes: int) -> list[Fragment]:
    """The fragments of a file; those of plain JSONL begin and end anywhere (`whole_lines`).

    Raises:
        DataError: a broken Parquet file.
    """
    if file.kind == "gzip":
        return [Fragment(file.path, "gzip", 0, file.size)]
    if file.kind == "jsonl":
        sizes = {
            at: min(fragment_bytes, file.size - at) for at in range(0, file.size, fragment_bytes)
        }
        return [Fragment(file.path, "jsonl", at, size) for at, size in sizes.items()]
    with open_file(file.path) as stream:
        try:
            about = pq.ParquetFile(stream).metadata
        except (OSError, pa.ArrowException) as error:
            raise unreadable(file.path, error) from error
    groups = (about.row_group(number).num_rows for number in range(about.num_row_groups))
    return [Fragment(file.path, "parquet", number, rows) for number, rows in enumerate(groups)]


def whole_lines(fragment: Fragment) -> Fragment:
    """The same with exactly the lines that begin in its range of bytes."""
    if fragment.kind != "jsonl":
        return fragment
    with open_file(fragment.path) as stream:
        start = _line_start(stream, fragment.start)
        stop = _line_start(stream, fragment.start + fragment.size)
    return replace(fragment, start=start, size=stop - start)


def read_lines(fragment: Fragment) -> list[bytes]:
    """All lines, blank ones too; the rows of a Parquet file as the JSON lines they would be.

    Raises:
        DataError: the file is missing, broken or shorter than it was.
    """
    if fragment.kind == "parquet":
        return [_json_line(row) for row in _row_group(fragment, columns=None).to_pylist()]
    lines = _text(fragment).split(b"\n")
    return lines[:-1] if lines[-1] == b"" else lines


def read_table(fragment: Fragment) -> pa.Table:
    """The rows that count, as checked before: columns of `SCHEMA`, each in one chunk.

    Raises:
        DataError: the file is missing, broken or not what it was.
    """
    table = parquet_table(fragment) if fragment.kind == "parquet" else None
    if table is None:
        lines, bad = read_lines(fragment), set(fragment.bad)
        good = (line for number, line in enumerate(lines) if number not in bad and line.strip())
        try:
            table = rows_table([json.loads(line) for line in good])
        except (ValueError, TypeError, LookupError) as error:
            raise _changed(fragment) from error
    elif fragment.bad:
        table = table.take(np.setdiff1d(np.arange(len(table)), fragment.bad))
    if len(table) != fragment.rows:
        raise _changed(fragment)
    return table


def parquet_table(fragment: Fragment) -> pa.Table | None:
    """All rows of a row group: columns of `SCHEMA`, each in one chunk, with nothing checked; None
    where the file's columns are no such columns as a whole.

    Raises:
        DataError: the file is missing or broken.
    """
    found = _row_group(fragment, columns=SCHEMA.names)
    columns = []
    for field in SCHEMA:
        if field.name not in found.column_names:
            if field.name not in MARKS:
                return None
            columns.append(pa.nulls(len(found), field.type))
            continue
        column = found[field.name]
        # A cast would take 2.0 and true for integers.
        if not pa.types.is_integer(getattr(column.type, "value_type", column.type)):
            return None
        try:
            columns.append(column.cast(field.type).combine_chunks())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return None
    return pa.table(columns, schema=SCHEMA)


def rows_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Checked rows as columns of `SCHEMA`."""
    marks = [_lists([row.get(mark) or None for row in rows]) for mark in MARKS]
    lengths = pa.array([row["prompt_length"] for row in rows], pa.int64())
    return pa.table([_lists([row["input_ids"] for row in rows]), lengths, *marks], schema=SCHEMA)


def _lists(values: list[list[int] | None]) -> pa.Array:
    """Lists of integers as an Arrow column, without a look at every number's type."""
    sizes = [len(value or ()) for value in values]
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int32)
    flat = np.fromiter(chain.from_iterable(filter(None, values)), np.int32, count=int(offsets[-1]))
    mask = pa.array([value is None for value in values]) if None in values else None
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), mask=mask)


def _row_group(fragment: Fragment, columns: list[str] | None) -> pa.Table:
    with open_file(fragment.path) as stream:
        try:
            return pq.ParquetFile(stream).read_row_group(
                fragment.start, columns=columns, use_threads=False
            )
        except (OSError, pa.ArrowException) as error:
            raise unreadable(fragment.path, error) from error


def _text(fragment: Fragment) -> bytes:
    with open_file(fragment.path) as stream:
        try:
            if fragment.kind == "gzip":
                return bytes(pa.CompressedInputStream(stream, "gzip").read())
            stream.seek(fragment.start)
            text = bytes(stream.read(fragment.size))
        except (OSError, pa.ArrowException) as error:
            raise unreadable(fragment.path, error) from error
    if len(text) != fragment.size:
        raise _changed(fragment)
    return text


def _line_start(stream: Any, offset: int) -> int:
    """Where the first line begins at or after an offset; the end of the file if none does."""
    if offset == 0:
        return 0
    stream.seek(offset - 1)
    at = offset - 1
    while piece := stream.read(2**16):
        newline = piece.find(b"\n")
        if newline >= 0:
            return at + newline + 1
        at += len(piece)
    return at


def _json_line(row: dict[str, Any]) -> bytes:
    present = {name: value for name, value in row.items() if value is not None}
    return json.dumps(present, ensure_ascii=False, default=str).encode()


def _changed(fragment: Fragment) -> DataError:
    return DataError(
        f"{fragment.path}: not what it was when the run began; restore the file, or choose another "
        "run_dir"
    )
