"""Training rows of a test: random ones in files of every kind, opened as a run opens them."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raymdm.config.data import DataSection
from raymdm.data.indexing import open_rows
from raymdm.data.manifest import Manifest
from raymdm.data.rows import TrainingRows

VOCABULARY = 300


def manifest(vocabulary_size: int = VOCABULARY) -> Manifest:
    """Of a prepared folder of which only the vocabulary counts."""
    return Manifest(
        format=1,
        fingerprint="",
        task={},
        prepare={},
        sources={},
        versions={},
        template="plain",
        tokenizer="tokenizer",
        vocabulary_size=vocabulary_size,
        mask_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        max_length=64,
        splits={},
    )


def open_files(
    *sources: Sequence[Path | str] | Path,
    run: Path | None = None,
    weights: Sequence[float] | None = None,
    **section: Any,
) -> TrainingRows:
    """The rows of some sources, each a file or several."""
    return open_rows(
        data_section(*sources, weights=weights, **section), Path(), manifest(), run or Path("none")
    )


def data_section(
    *sources: Sequence[Path | str] | Path, weights: Sequence[float] | None = None, **section: Any
) -> DataSection:
    """The section `data` with some sources, each a file or several."""
    names = [[str(s)] if isinstance(s, Path) else [str(name) for name in s] for s in sources]
    weights = weights or [1.0] * len(names)
    mixed = [{"files": f, "weight": w} for f, w in zip(names, weights, strict=True)]
    return DataSection(sources=mixed, **section)


def random_rows(count: int, seed: int = 0, longest: int = 12) -> list[dict[str, Any]]:
    """Rows of different lengths, a few of them with marks."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        length = int(random.integers(2, longest + 1))
        prompt = int(random.integers(0, length))
        row: dict[str, Any] = {
            "input_ids": random.integers(3, VOCABULARY, length).tolist(),
            "prompt_length": prompt,
            "id": f"{seed}-{number}",
        }
        if number % 5 == 0:
            row["delimiters"] = [prompt]
        if number % 7 == 0 and prompt:
            row["syntax"] = [0]
        rows.append(row)
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]], group: int = 16) -> Path:
    """Rows as a file of the kind that its name says, a Parquet one in row groups of `group`."""
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines))
    elif path.suffix == ".parquet":
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = {name: [row.get(name) for row in rows] for name in names}
        pq.write_table(pa.table(columns), path, row_group_size=group)
    else:
        path.write_bytes(lines)
    return path
