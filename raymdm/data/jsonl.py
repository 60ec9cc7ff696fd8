"""Prepared rows on disk: checked once with file and line, then read by sample number."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raymdm.data.schema import MARKS
from raymdm.errors import DataError


class RowError(ValueError):
    """Why a row cannot be used; whoever knows the file and the line says where."""


@dataclass(frozen=True)
class RowIndex:
    """Where every row of a JSONL file starts; sample number = row number.

    Attributes:
        path: the file.
        offsets: int64[N], byte offset of each row.
        lengths: int64[N], tokens of each row.
        prompt_lengths: int64[N].
        marks: which of the optional fields `MARKS` some row has.
    """

    path: str
    offsets: np.ndarray
    lengths: np.ndarray
    prompt_lengths: np.ndarray
    marks: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.offsets)

    def read(self, samples: Iterable[int]) -> list[dict[str, Any]]:
        """The rows with these sample numbers, in their order."""
        with open(self.path, "rb") as file:
            rows = []
            for sample in samples:
                file.seek(int(self.offsets[sample]))
                rows.append(json.loads(file.readline()))
        return rows


def index_rows(path: Path, vocabulary_size: int) -> RowIndex:
    """Read a prepared file once, checking every row.

    Raises:
        DataError: missing or empty file, broken line, missing field, wrong type, an id outside the
            vocabulary, a prompt_length that leaves no response, or a mark outside its part of the
            row; names file and line.
    """
    offsets: list[int] = []
    lengths: list[int] = []
    prompt_lengths: list[int] = []
    marks: set[str] = set()
    offset = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        row = check_row(line, vocabulary_size)
                    except RowError as error:
                        raise DataError(f"{path}, line {number}: {error}") from error
                    offsets.append(offset)
                    lengths.append(len(row["input_ids"]))
                    prompt_lengths.append(row["prompt_length"])
                    marks.update(field for field in MARKS if row.get(field))
                offset += len(line)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); run `raymdm prepare` or set data.folder"
        ) from error
    if not offsets:
        raise DataError(f"{path}: the file has no rows; run `raymdm prepare` on data that has some")
    return RowIndex(
        str(path),
        np.array(offsets),
        np.array(lengths),
        np.array(prompt_lengths),
        frozenset(marks),
    )


def check_row(line: bytes, vocabulary_size: int) -> dict[str, Any]:
    """The row that a line holds.

    Raises:
        RowError: broken JSON, a missing field, a wrong type, an id outside the vocabulary, a
            prompt_length that leaves no response, or a mark outside its part of the row.
    """
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RowError(f"not valid JSON ({error}); mend or remove the line") from error
    if not isinstance(row, dict):
        raise RowError(f"expected an object, found a {type(row).__name__}")
    for field in ("input_ids", "prompt_length"):
        if field not in row:
            raise RowError(
                f"field {field!r} is missing (found: {', '.join(row) or 'none'}); "
                "rows need input_ids and prompt_length"
            )
    ids, prompt_length = row["input_ids"], row["prompt_length"]
    if not isinstance(ids, list) or not all(type(token) is int for token in ids):
        raise RowError("input_ids must be a list of integers")
    if type(prompt_length) is not int or prompt_length < 0:
        raise RowError(f"prompt_length must be an integer >= 0, found {prompt_length!r}")
    if prompt_length >= len(ids):
        raise RowError(
            f"prompt_length {prompt_length} leaves no response in a row of {len(ids)} "
            "tokens; drop the row or mend its prompt_length"
        )
    if min(ids) < 0 or max(ids) >= vocabulary_size:
        bad = next(token for token in ids if not 0 <= token < vocabulary_size)
        raise RowError(
            f"token id {bad} is outside the vocabulary of {vocabulary_size}; "
            "was the row made with another tokenizer?"
        )
    _check_marks(row, "delimiters", "response", range(prompt_length, len(ids)))
    _check_marks(row, "syntax", "prompt", range(prompt_length))
    return row


def _check_marks(row: dict[str, Any], field: str, part: str, allowed: range) -> None:
    marks = row.get(field, [])
    if not isinstance(marks, list) or not all(type(position) is int for position in marks):
        raise RowError(f"{field} must be a list of integers, positions in input_ids")
    for position in marks:
        if position not in allowed:
            raise RowError(
                f"{field} has position {position}, outside the {part} ({allowed.start} <= "
                f"position < {allowed.stop}); mend or remove it"
            )
