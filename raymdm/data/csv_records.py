"""Records of a CSV file with the place of each: streamed, so that a file may be of any size."""

import csv
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from raymdm.errors import DataError


class Record(NamedTuple):
    """One record, which may span several lines where a field holds a line break."""

    line: int
    """The line it starts on."""
    end: int
    """Bytes up to its end, counted from where reading began."""
    fields: list[str]


def records(lines: Iterable[bytes], path: str, first_line: int = 1) -> Iterator[Record]:
    """The records of some lines, empty lines passed over.

    Args:
        lines: Whole lines of the file, the first of them the start of a record.
        path: For messages.
        first_line: The number of the first line.

    Raises:
        DataError: a quote that is not closed or stands inside a field, or bytes that are not UTF-8;
            names file and line.
    """
    line = started = first_line
    end = 0

    def texts() -> Iterator[str]:
        nonlocal line, end
        for data in lines:
            end += len(data)
            line += 1
            yield data.decode("utf-8-sig" if line == 2 else "utf-8")

    try:
        # The reader takes exactly the lines that a record needs.
        for fields in csv.reader(texts(), strict=True):
            if fields:
                yield Record(started, end, fields)
            started = line
    except csv.Error as error:
        raise DataError(
            f"{path}, line {started}: not valid CSV ({error}); mend the file"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {line - 1}: not UTF-8 ({error.reason}); mend or remove the line"
        ) from error
