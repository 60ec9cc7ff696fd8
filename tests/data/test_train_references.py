"""Training rows that say what they are scored against, and prompts that may be too long."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prepared import write_prepared

from raymdm.config import load_config
from raymdm.config.data import TaskSection
from raymdm.data.evaluation import read_items
from raymdm.data.manifest import read_manifest
from raymdm.data.sources import JsonlSource
from raymdm.data.tokenizer import train_bpe
from raymdm.data.work import Work, line_tables
from raymdm.errors import DataError
from raymdm.prepare import fingerprint_of
from raymdm.tasks import get_task


def lines(folder: Path, **keys: Any) -> list[dict[str, Any]]:
    """What a Ray task makes of two problems, whose prompts have 6 and 25 tokens."""
    path = folder / "rows.jsonl"
    problems = [{"question": question, "answer": "#### 2"} for question in ("1 + 1", "1 + " * 6)]
    path.write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    train_bpe([], 259, "<|mdm_mask|>").save_pretrained(folder / "tokenizer")
    work = Work(
        task=TaskSection(name="gsm8k"),
        imports=(),
        search_path="",
        source=JsonlSource(str(path)),
        validation_fraction=0.0,
        tokenizer=str(folder / "tokenizer"),
        max_length=64,
        **{"role": "train", **keys},
    )
    batch = {"first": np.array([1]), "rows": np.array([2]), "offset": np.array([0])}
    return [row for table in line_tables(batch, work) for row in table.to_pylist()]


def rows(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    assert [row["error"] for row in found] == [None, None]
    return [json.loads(row["line"]) for row in found if row["line"] is not None]


def test_training_rows_have_a_reference_where_it_is_asked_for(tmp_path: Path):
    assert all("reference" not in row for row in rows(lines(tmp_path)))
    with_references = rows(lines(tmp_path, train_references=True))
    assert with_references == rows(lines(tmp_path, role="test"))
    assert json.loads(with_references[0]["reference"])["answer"] == "#### 2"


def test_rows_whose_prompts_are_too_long_are_left_out_but_for_test_rows(tmp_path: Path):
    assert [row["line"] is None for row in lines(tmp_path, max_prompt_length=24)] == [False, True]
    assert len(rows(lines(tmp_path, max_prompt_length=24, role="test"))) == 2
    assert len(rows(lines(tmp_path))) == 2
    (row,) = rows(lines(tmp_path, max_prompt_length=6))
    assert row["prompt_length"] == 6


def test_folders_of_before_these_keys_keep_their_fingerprints():
    def mark(*keys: str) -> str:
        config = load_config(["tasks/addition"], [f"prepare.{key}" for key in keys])
        return fingerprint_of(config, get_task(config.task), {"train": "generated with seed 0"})

    assert mark() == mark("train_references=false", "max_prompt_length=null") == BEFORE
    assert len({mark(), mark("train_references=true"), mark("max_prompt_length=9")}) == 3


BEFORE = "b38c49e9a5c53c1c"


def test_training_rows_without_references_name_the_key(tmp_path: Path):
    folder = write_prepared(tmp_path / "data")
    manifest = read_manifest(folder)
    with pytest.raises(DataError, match=r"row 1 has no .*`prepare.train_references: true`"):
        read_items(folder, manifest, "train", None)
    (folder / "train.jsonl").write_bytes((folder / "test.jsonl").read_bytes())
    assert [item.number for item in read_items(folder, manifest, "train", 3)] == [0, 1, 2]
