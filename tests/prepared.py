"""A small prepared folder for tests: sums of two numbers below ten, byte-level tokens."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raymdm.config import Config
from raymdm.config.loading import validate
from raymdm.data.manifest import Manifest, SplitManifest, write_manifest
from raymdm.data.schema import row_line
from raymdm.data.stream import StepRows, read_steps
from raymdm.data.tokenizer import train_bpe
from raymdm.training import RunDirectory, train_worker
from raymdm.training.checkpoint import Checkpoints
from raymdm.training.engine import process_group_of_one
from raymdm.training.job import Job, make_job

ROWS = {"train": 80, "validation": 10, "test": 10}
TASK = {
    "name": "reasoning_gym:basic_arithmetic",
    "prompt_template": "{expression}=",
    "options": {"min_terms": 2, "max_terms": 2, "operators": ["+"]},
}


def write_prepared(
    folder: Path,
    rows: dict[str, int] | None = None,
    *,
    marked: bool = False,
    references: bool = False,
) -> Path:
    """A prepared folder as `raymdm prepare` would write it, without starting Ray.

    With `marked`, the first token of every response is a delimiter and the prompt's last is syntax.
    With `references`, training rows have them too.
    """
    rows = rows or ROWS
    folder.mkdir(parents=True, exist_ok=True)
    problems = list(itertools.product(range(10), repeat=2))
    problems = [problems[i] for i in np.random.default_rng(0).permutation(len(problems))]
    texts = [f"{a} + {b}=" for a, b in problems]
    tokenizer = train_bpe(texts, 259, "<|mdm_mask|>")
    tokenizer.save_pretrained(folder / "tokenizer")
    splits = {}
    start = 0
    for split, count in rows.items():
        with open(folder / f"{split}.jsonl", "wb") as file:
            for index in range(start, start + count):
                a, b = problems[index % len(problems)]
                scored = references or split != "train"
                file.write(_row(tokenizer, a, b, index, scored, marked))
        start += count
        splits[split] = SplitManifest(
            file=f"{split}.jsonl",
            rows=count,
            dropped_too_long=0,
            duplicates_dropped=0,
            wrong_by_own_scorer=0,
            tokens=9 * count,
            median_row=8,
            longest_row=9,
            longest_response=3,
            sha256="",
            rows_with_delimiters=count * marked,
            rows_with_syntax=count * marked,
        )
    manifest = Manifest(
        format=1,
        fingerprint=f"{sorted(rows.items())}{' marked' * marked}",
        task=TASK,
        prepare={},
        sources={},
        versions={},
        template="plain",
        tokenizer="tokenizer",
        vocabulary_size=len(tokenizer),
        mask_token_id=tokenizer.mask_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_length=12,
        splits=splits,
    )
    write_manifest(folder, manifest)
    return folder


def _row(tokenizer: object, a: int, b: int, index: int, scored: bool, marked: bool) -> bytes:
    prompt = tokenizer(f"{a} + {b}=")["input_ids"]  # type: ignore[operator]
    response = tokenizer(str(a + b))["input_ids"]  # type: ignore[operator]
    reference = {"question": f"{a} + {b}", "answer": str(a + b), "metadata": {}}
    ids = [*prompt, *response, tokenizer.eos_token_id]  # type: ignore[attr-defined]
    return row_line(
        ids,
        len(prompt),
        f"row-{index}",
        json.dumps(reference) if scored else None,
        delimiters=[len(prompt)] * marked,
        syntax=[len(prompt) - 1] * marked,
    )


def start_run(config: Config, resume: bool = False) -> Job:
    """The run of a configuration, with its directory made (or found again)."""
    job = make_job(config, RunDirectory(config.run_dir))
    RunDirectory.open(config, job.manifest.fingerprint, resume)
    return job


def losses_of(job: Job) -> np.ndarray:
    """The logged loss of every step."""
    return pd.read_parquet(job.run.metrics)["loss"].to_numpy()


def cut_at(job: Job, step: int) -> None:
    """Train in this process until rows of that step would be read, as after a Ctrl-C."""

    def batches(start: int) -> Iterator[StepRows]:
        for rows in read_steps(job.train, job.order, start, job.steps):
            if rows.step == step:
                raise KeyboardInterrupt
            yield rows

    gpu = job.config.cluster.gpus_per_worker > 0
    with process_group_of_one(gpu), pytest.raises(KeyboardInterrupt):
        train_worker(job, batches, Checkpoints.direct(job.config, job.run))


def tiny_config(run_dir: Path, folder: Path, **sections: object) -> Config:
    """A configuration of a few seconds: 16 hidden units, 6 steps of 16 rows."""
    content: dict[str, object] = {
        "run_dir": str(run_dir),
        "data": {"folder": str(folder), "rows_per_block": 24},
        "model": {"hidden_size": 16, "layers": 1, "heads": 2},
        "training": {"steps": 6, "batch_size": 16, "learning_rate": 3e-3, "warmup_steps": 2},
        "cluster": {"address": "local"},
        "evaluation": {"decoding": {"response_length": 3}},
    }
    for name, values in sections.items():
        if isinstance(values, dict):
            content[name] = {**content.get(name, {}), **values}  # type: ignore[dict-item]
        else:
            content[name] = values
    return validate(content)
