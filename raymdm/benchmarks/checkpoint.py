"""What checkpoints cost: the time that one takes over the time of the steps between two.

Steps and checkpoints of one worker in this process take turns, so that both meet the same machine.
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from raymdm.benchmarks.request import Report, Request
from raymdm.benchmarks.train import Plan, fitted
from raymdm.config import Config, read_config
from raymdm.data.stream import read_steps
from raymdm.training.checkpoint import Checkpoints
from raymdm.training.engine import process_group_of_one
from raymdm.training.job import make_job
from raymdm.training.run_directory import RunDirectory
from raymdm.training.worker import Worker

_EVERY = 50
_BLOCKS, _STEPS = 8, 4


@dataclass(frozen=True)
class CheckpointFigures:
    """What was measured.

    Attributes:
        parameters: of the model.
        megabytes: of one checkpoint.
        step: seconds of a training step, median of the blocks.
        checkpoint: seconds that training stands still for a checkpoint, median.
        share: of a run's time that goes into a checkpoint every 50 steps.
    """

    parameters: int
    megabytes: float
    step: float
    checkpoint: float
    share: float


def bench(request: Request) -> Report:
    """Figures of a model of 5M parameters, or of the one that was asked for."""
    base = {"training": {"batch_size": 16}}
    config = request.settings({**read_config(["models/5m"]), **base})
    figures = measure_checkpoints(config, request.folder, request.blocks or _BLOCKS)
    return Report([table(figures)], asdict(figures))


def table(figures: CheckpointFigures) -> Table:
    """The two times and the share."""
    made = Table(
        title=f"{figures.parameters / 1e6:.1f}M parameters, checkpoints of "
        f"{figures.megabytes:.0f} MB every {_EVERY} steps"
    )
    made.add_column("")
    made.add_column("", justify="right")
    made.add_row("a step", f"{figures.step:.3f} s")
    made.add_row("a checkpoint", f"{figures.checkpoint:.3f} s")
    made.add_row("share of the run's time", f"{figures.share:.2%}")
    return made


def measure_checkpoints(config: Config, folder: Path, blocks: int) -> CheckpointFigures:
    """Blocks of steps, each with a checkpoint after it.

    Args:
        config: model, estimator and training of the run; its data and steps are replaced.
        folder: an empty folder for rows and run directory.
        blocks: how many.
    """
    plan = Plan(blocks=blocks, steps=_STEPS)
    config = fitted(config, folder, plan)
    job = make_job(config, RunDirectory(config.run_dir))
    RunDirectory.open(config, job.manifest.fingerprint, resume=False)
    steps, checkpoints = [], []
    with process_group_of_one(gpu=config.cluster.gpus_per_worker > 0):
        worker = Worker(job, Checkpoints.direct(config, job.run))
        rows = read_steps(job.train, job.order, 0, job.steps)
        for _ in range(plan.warm_up):
            worker.step(next(rows))
        for _ in range(blocks):
            started = time.perf_counter()
            for _ in range(_STEPS):
                worker.step(next(rows))
            between = time.perf_counter()
            worker.save_checkpoint()
            checkpoints.append(time.perf_counter() - between)
            steps.append((between - started) / _STEPS)
        size = sum(f.stat().st_size for f in job.run.checkpoints.rglob("*") if f.is_file())
    step, checkpoint = float(np.median(steps)), float(np.median(checkpoints))
    return CheckpointFigures(
        parameters=sum(p.numel() for p in worker.engine.module.parameters()),
        megabytes=size / 1e6,
        step=step,
        checkpoint=checkpoint,
        share=checkpoint / (_EVERY * step + checkpoint),
    )
