"""The list of prompts to train on: a JSONL file that `raymdm rl filter` writes, or anybody.

A row names a training row of the prepared data by its number, from 0:

    {"number": 12, "id": "train.jsonl:13", "first_right": 5, "steps": 20}

`id` (that row's own name) is checked where it is given; `first_right` (the first denoising step,
from 1, whose text was right) and `steps` are for people, and may be missing as any other field.
Beside a list of `raymdm rl filter`, FILE.settings.json says how it was made.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raymdm.data.evaluation import Item
from raymdm.errors import DataError


def read_prompt_list(path: str | Path, items: Sequence[Item]) -> list[int]:
    """Numbers of the prompts to train on, in the order of the file.

    Args:
        path: the list.
        items: the training rows that can be named.

    Raises:
        DataError: a list that is missing or empty, a line that is broken, or a row that is not
            among the items, has another id there, or is named twice.
    """
    known = {item.number: item.id for item in items}
    found: dict[int, int] = {}
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); `raymdm rl filter` writes such a list"
        ) from error
    for place, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _parsed(line, f"{path}, line {place}")
        number = row["number"]
        if number not in known:
            raise DataError(
                f"{path}, line {place}: there is no training row {number} (from 0, of "
                f"{len(known)}); was the list made of other data?"
            )
        if row.get("id", known[number]) != known[number]:
            raise DataError(
                f"{path}, line {place}: training row {number} is {known[number]!r}, not "
                f"{row['id']!r}; the list was made of other data: make it again"
            )
        if number in found:
            raise DataError(
                f"{path}, line {place}: row {number} is in line {found[number]} already; remove one"
            )
        found[number] = place
    if not found:
        raise DataError(
            f"{path}: no prompts are in the list; train without it, or make it of more prompts or "
            "with other settings"
        )
    return list(found)


def _parsed(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place}: not valid JSON ({error}); mend or remove the line") from error
    if not isinstance(row, dict) or type(row.get("number")) is not int:
        raise DataError(f'{place}: not a row such as {{"number": 12}}; mend or remove the line')
    return row
