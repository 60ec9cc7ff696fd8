"""LoRA on a published checkpoint over real rows: exported, reloaded, the same logits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from prepared import start_run, tiny_config

from raymdm.benchmarks.rows import write_random_rows
from raymdm.data.schema import row_line
from raymdm.data.stream import read_steps
from raymdm.exports import export_run
from raymdm.models import SpecialTokens, load_model
from raymdm.training.checkpoint import Checkpoints
from raymdm.training.engine import process_group_of_one
from raymdm.training.worker import Worker

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
LLADA = SHARED / "fixtures" / "llada_tiny"
GSM8K = SHARED / "data" / "gsm8k" / "train.jsonl"
MASK, EOS = 311, 303


def write_bytes_of_gsm8k(folder: Path, count: int = 24) -> Path:
    """Rows of GSM8K as their bytes, which are ids of that checkpoint's vocabulary."""
    problems = [json.loads(line) for line in GSM8K.read_text().splitlines()[:count]]
    prompts = [list(problem["question"].encode()) for problem in problems]
    rows = [
        [*prompt, *problem["answer"].encode(), EOS]
        for prompt, problem in zip(prompts, problems, strict=True)
    ]
    write_random_rows(
        folder,
        lengths=np.array([len(row) for row in rows]),
        prompt_lengths=np.array([len(prompt) for prompt in prompts]),
        vocabulary_size=320,
        tokens=SpecialTokens(mask_token_id=MASK, eos_token_id=EOS, pad_token_id=EOS),
    )
    with open(folder / "train.jsonl", "wb") as file:
        for number, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            file.write(row_line(row, len(prompt), f"row-{number}", None))
    return folder


@pytest.mark.skipif(not LLADA.is_dir() or not GSM8K.is_file(), reason="no published model here")
def test_adapters_on_llada_export_and_reload_with_the_same_logits(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path / "run",
        write_bytes_of_gsm8k(tmp_path / "data"),
        model={"init_from": str(LLADA), "lora": {"rank": 4}},
        training={"steps": 4, "batch_size": 6, "micro_batch_size": 3, "batching": "packed"},
    )
    job = start_run(config)
    ids = torch.arange(64).view(2, 32).masked_fill(torch.arange(32) % 3 == 0, MASK)
    with process_group_of_one(gpu=False), torch.no_grad():
        worker = Worker(job, Checkpoints.direct(config, job.run))
        with torch.enable_grad():
            for rows in read_steps(job.train, job.order, 0, job.steps):
                assert worker.step(rows) is None
        worker.close("finished")
        worker.engine.eval()
        trained = worker.engine(ids)
    export_run(job.run, config, tmp_path / "exported", "same")
    with torch.no_grad():
        exported, start = load_model(tmp_path / "exported")(ids), load_model(LLADA)(ids)
    torch.testing.assert_close(exported, trained, rtol=0, atol=1e-3)
    assert (exported.argmax(-1) == trained.argmax(-1)).all()
    assert (exported - start).abs().max() > 0.05
