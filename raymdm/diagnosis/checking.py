"""The estimate against the memory that two steps of the same configuration really take.

The steps run in a process of their own (`python -m raymdm.diagnosis.measure FOLDER`), as one
worker, on random rows of the longest length with all of their responses masked. Weights are new.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from raymdm.benchmarks.rows import write_random_rows
from raymdm.config import Config, dump_yaml
from raymdm.config.data import DataSection
from raymdm.config.estimator import ControlSection, DelimiterSection, MaskerSection, TimeSection
from raymdm.config.training import CheckpointsSection, WandbSection
from raymdm.diagnosis.lengths import Lengths, read_lengths
from raymdm.diagnosis.memory import Estimate, estimate, largest_forward
from raymdm.errors import RunError
from raymdm.models import ModelShape, SpecialTokens

STEPS = 2
RESULT = "measured.json"
SMALL = "small"
"""Folder of a tiny run of the same kind, which is not measured."""
# glibc would keep freed tensors for later, and count as used what no tensor holds.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@dataclass(frozen=True)
class Check:
    """Bytes of one worker, estimated and measured.

    Attributes:
        estimate: of the configuration that was run.
        measured: the peak beyond what the process held before the model was made.
        process: what it held then.
    """

    estimate: Estimate
    measured: float
    process: float

    @property
    def ratio(self) -> float:
        """Estimated over measured."""
        return self.estimate.device_bytes / self.measured


def check_estimate(config: Config, shape: ModelShape, lengths: Lengths) -> Check:
    """Run two steps and measure.

    Args:
        config: of the run; its data, number of workers and estimator are replaced.
        shape: of its model.
        lengths: of its rows.

    Raises:
        RunError: the process failed (killed, where it needs more memory than there is).
    """
    with tempfile.TemporaryDirectory(prefix="raymdm-doctor-") as name:
        folder = Path(name)
        run = worst_case(config, lengths, folder)
        rows = (STEPS + 1) * run.training.batch_size
        tokens = SpecialTokens(shape.mask_token_id, shape.eos_token_id, shape.pad_token_id)
        _write_rows(
            folder / "data", rows, replace(lengths, vocabulary_size=shape.vocabulary_size), tokens
        )
        _write_rows(folder / SMALL / "data", rows, Lengths(16, 8, 4, ""), SpecialTokens(13, 14, 15))
        (folder / "config.yaml").write_text(dump_yaml(run))
        command = [sys.executable, "-m", "raymdm.diagnosis.measure", str(folder)]
        threads = {"OMP_NUM_THREADS": str(run.training.threads_per_worker)}
        done = subprocess.run(
            command, env={**os.environ, **_ALLOCATOR, **threads}, capture_output=True, text=True
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            killed = "killed, probably for want of memory" if done.returncode == -9 else lines[-1]
            raise RunError(f"doctor --check: the measured process failed: {killed}")
        figures = json.loads((folder / RESULT).read_text())
        expected = estimate(run, shape, read_lengths(run))
    return Check(expected, figures["measured"], figures["process"])


def worst_case(config: Config, lengths: Lengths, folder: Path) -> Config:
    """The configuration of one worker that masks every response token, in at most two forwards a
    step, with as many rows and views in each as the given one has.
    """
    forward = largest_forward(config, lengths)
    estimator, training = config.estimator, config.training
    if estimator.objective == "masked":
        estimator = estimator.model_copy(
            update={
                "eligible": "response",
                "time": TimeSection(sampler="clipped", bounds=[0.999, 1.0]),
                "masker": MaskerSection(views=forward.views),
                "delimiters": DelimiterSection(),
                "control": ControlSection(),
            }
        )
    return config.model_copy(
        update={
            "run_dir": str(folder / "run"),
            "keep": "metrics",
            "wandb": WandbSection(),
            "imports": [],
            "checkpoints": CheckpointsSection(),
            "data": DataSection(folder=str(folder / "data")),
            "estimator": estimator,
            "training": training.model_copy(
                update={
                    "batch_size": forward.rows * min(forward.count, 2),
                    "micro_batch_size": forward.rows,
                    # One more than are run: after the last one a run validates.
                    "steps": STEPS + 1,
                    "epochs": None,
                    "warmup_steps": 0,
                    "validate_every": 0,
                    "checkpoint_every": 0,
                }
            ),
            "cluster": config.cluster.model_copy(update={"workers": 1}),
        }
    )


def _write_rows(folder: Path, rows: int, lengths: Lengths, tokens: SpecialTokens) -> None:
    """Prepared rows of random tokens, all as long as the longest."""
    write_random_rows(
        folder,
        lengths=np.full(rows, lengths.row),
        prompt_lengths=np.full(rows, lengths.row - lengths.response),
        vocabulary_size=lengths.vocabulary_size,
        tokens=tokens,
    )
