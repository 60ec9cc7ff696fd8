"""Tables with merged cells as text: HTML with spans, or Markdown.

The tables of HiTab: JSONL, a table a line, with `table_id`, `title`, `texts` (a matrix of strings),
`merged_regions`, `top_header_rows_num` and `left_header_columns_num`.
"""

import html
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from raymdm.errors import DataError


@dataclass(frozen=True)
class Region:
    """Cells that are one: rows top..bottom, columns left..right, both ends included."""

    top: int
    left: int
    bottom: int
    right: int

    def places(self) -> Iterator[tuple[int, int]]:
        """Row and column of every cell, the first one first."""
        for row in range(self.top, self.bottom + 1):
            for column in range(self.left, self.right + 1):
                yield row, column


@dataclass(frozen=True)
class Table:
    """A table as it is printed.

    Attributes:
        title: may be empty.
        cells: rows of texts, equally long.
        regions: merged cells, none over another.
        header_rows: how many rows at the top are headers.
        header_columns: how many columns at the left are.
    """

    title: str
    cells: tuple[tuple[str, ...], ...]
    regions: tuple[Region, ...]
    header_rows: int
    header_columns: int


class TableFile(NamedTuple):
    """A file as it is now: what was read from it is kept until it changes."""

    path: str
    modified: int
    size: int


def table_files(paths: Sequence[str]) -> tuple[TableFile, ...]:
    """The files of those paths. Raises DataError where one is missing."""
    try:
        found = [(path, os.stat(path)) for path in paths]
    except OSError as error:
        raise DataError(
            f"task.options.tables: {error.filename} cannot be read ({error.strerror})"
        ) from error
    return tuple(TableFile(path, stat.st_mtime_ns, stat.st_size) for path, stat in found)


@lru_cache(maxsize=8)
def read_tables(files: tuple[TableFile, ...]) -> Mapping[str, Table]:
    """All tables of some files by their id.

    Raises:
        DataError: a file that cannot be read, a line that is no table, or an id that comes twice.
    """
    tables: dict[str, Table] = {}
    for path, *_ in files:
        try:
            with open(path, encoding="utf-8") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        name, table = _parse(line, f"{path}, line {number}")
                        if name in tables and tables[name] != table:
                            raise DataError(f"{path}, line {number}: a second table {name!r}")
                        tables[name] = table
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"task.options.tables: {path} cannot be read ({reason})") from error
    return tables


def as_html(table: Table) -> str:
    """One line for each row. A merged cell stands once, with its `rowspan` and `colspan`."""
    starts = {(region.top, region.left): region for region in table.regions}
    hidden = {place for region in table.regions for place in list(region.places())[1:]}
    lines = ["<table>"]
    if table.title:
        lines.append(f"<caption>{html.escape(table.title, quote=False)}</caption>")
    for row, texts in enumerate(table.cells):
        written = []
        for column, text in enumerate(texts):
            if (row, column) in hidden:
                continue
            head = row < table.header_rows or column < table.header_columns
            kind = "th" if head else "td"
            spans = _spans(starts.get((row, column)))
            written.append(f"<{kind}{spans}>{html.escape(text, quote=False)}</{kind}>")
        lines.append(f"<tr>{''.join(written)}</tr>")
    return "\n".join([*lines, "</table>"])


def as_markdown(table: Table) -> str:
    """A pipe table. It knows no spans: the text of a merged cell is repeated in all it covers.

    It knows one header row too; the others follow as rows of the body.
    """
    cells = [list(row) for row in table.cells]
    for region in table.regions:
        for row, column in region.places():
            cells[row][column] = table.cells[region.top][region.left]
    rows = ["| " + " | ".join(_in_a_pipe_table(text) for text in row) + " |" for row in cells]
    rows.insert(1, "|" + " --- |" * len(cells[0]))
    return "\n".join([*([table.title, ""] if table.title else []), *rows])


def _spans(region: Region | None) -> str:
    if region is None:
        return ""
    rows, columns = region.bottom - region.top + 1, region.right - region.left + 1
    down = f' rowspan="{rows}"' if rows > 1 else ""
    return down + (f' colspan="{columns}"' if columns > 1 else "")


def _in_a_pipe_table(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _parse(line: str, place: str) -> tuple[str, Table]:
    try:
        row = json.loads(line)
        cells = [[str(text) for text in texts] for texts in row["texts"]]
        width = max(len(texts) for texts in cells)
        padded = [texts + [""] * (width - len(texts)) for texts in cells]
        regions = _regions(row.get("merged_regions", ()), padded)
        return str(row["table_id"]), Table(
            title=str(row.get("title") or ""),
            cells=tuple(map(tuple, padded)),
            regions=regions,
            header_rows=int(row.get("top_header_rows_num", 1)),
            header_columns=int(row.get("left_header_columns_num", 0)),
        )
    except KeyError as error:
        raise DataError(f"{place}: field {error} of a table is missing") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{place}: not a table ({error})") from error


def _regions(given: Sequence[Mapping[str, int]], cells: list[list[str]]) -> tuple[Region, ...]:
    """The regions inside the table that do not overlap an earlier one.

    A merged cell shows one text. Where it does not stand in the first cell it is moved there, into
    `cells`; where the cells hold several, they are not treated as merged: nothing may get lost.
    """
    regions: list[Region] = []
    taken: set[tuple[int, int]] = set()
    for one in given:
        region = Region(
            max(one["first_row"], 0),
            max(one["first_column"], 0),
            min(one["last_row"], len(cells) - 1),
            min(one["last_column"], len(cells[0]) - 1),
        )
        places = list(region.places())
        texts = {cells[row][column] for row, column in places} - {""}
        if len(places) < 2 or taken & set(places) or len(texts) > 1:
            continue
        cells[region.top][region.left] = "".join(texts)
        taken |= set(places)
        regions.append(region)
    return tuple(regions)
