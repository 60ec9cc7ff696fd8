"""The rows of a split as items to be scored."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymdm.data.jsonl import index_rows
from raymdm.data.manifest import Manifest
from raymdm.data.schema import split_file
from raymdm.errors import DataError

_OTHERS = "only rows that `raymdm prepare` wrote have one"
_TRAIN = "prepare training rows with `prepare.train_references: true`"


@dataclass(frozen=True)
class Item:
    """One row to be scored.

    Attributes:
        number: sample number, the address of its noise.
        id: the row's own name.
        prompt: token ids before the response, exactly as in training.
        input_ids: prompt, response and EOS.
        reference: what the task's scorer needs.
    """

    number: int
    id: str
    prompt: list[int]
    input_ids: list[int]
    reference: dict[str, Any]


def read_items(folder: Path, manifest: Manifest, split: str, limit: int | None) -> list[Item]:
    """The first `limit` items of a split.

    Raises:
        DataError: the split is missing, broken, or has rows without a reference.
    """
    index = index_rows(folder / split_file(split), manifest.vocabulary_size)
    count = min(len(index), limit or len(index))
    items = []
    for number, row in enumerate(index.read(range(count))):
        if "reference" not in row:
            raise DataError(
                f"{index.path}: row {number + 1} has no 'reference' to score against; "
                f"{_TRAIN if split == 'train' else _OTHERS}"
            )
        items.append(
            Item(
                number,
                str(row.get("id", number)),
                row["input_ids"][: row["prompt_length"]],
                row["input_ids"],
                json.loads(row["reference"]),
            )
        )
    return items
