"""Tokens per second that streaming supplies, over those that a small model trains on one core."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.table import Table

from raymdm.benchmarks.request import Report, Request
from raymdm.benchmarks.rows import write_random_rows
from raymdm.cluster import start_ray
from raymdm.config import Config, read_config
from raymdm.config.training import CheckpointsSection
from raymdm.data.order import Steps
from raymdm.data.rows import TrainingRows
from raymdm.data.stream import StepRows, iterate_steps, read_steps, stream_dataset
from raymdm.errors import RunError
from raymdm.training import RunDirectory
from raymdm.training.checkpoint import Checkpoints
from raymdm.training.engine import process_group_of_one
from raymdm.training.job import Job, make_job
from raymdm.training.worker import Worker

_BASE: dict[str, Any] = {
    "training": {"batch_size": 16, "learning_rate": 1e-3, "schedule": "constant"},
    # About sixteen windows: what reading them takes must show.
    "data": {"fragment_bytes": 2**20, "window_blocks": 4},
}
SHUFFLES: tuple[Literal["window", "full"], ...] = ("window", "full")


@dataclass(frozen=True)
class Plan:
    """Size of the measurement."""

    blocks: int = 3
    steps: int = 8
    warm_up: int = 3
    rows: int = 100_000
    length: int = 128
    prompt_length: int = 32
    vocabulary_size: int = 4096


@dataclass(frozen=True)
class StreamFigures:
    """What was measured, in tokens per second.

    Attributes:
        parameters: weights of the model.
        megabytes: of the file that was streamed.
        training: what the model trains, median over the blocks.
        supplied: what the stream gives under each shuffle, from its first step on.
        first_step: seconds until it gave that; under `full` everything is read before.
        ratios: supplied / training.
    """

    parameters: int
    megabytes: float
    training: float
    supplied: dict[str, float]
    first_step: dict[str, float]
    ratios: dict[str, float] = field(default_factory=dict)


def bench(request: Request) -> Report:
    """Figures of the default model, or of the one that was asked for."""
    config = request.settings({**read_config(["models/5m"]), **_BASE})
    plan = Plan(blocks=request.blocks or Plan.blocks)
    with start_ray("local", verbose=request.verbose):
        figures = measure_stream(config, request.folder, plan)
    return Report([table(figures)], asdict(figures))


def table(figures: StreamFigures) -> Table:
    """Training and what either shuffle supplies."""
    made = Table(
        title=f"{figures.megabytes:.0f} MB of JSONL through Ray Data, for one worker, against "
        f"{figures.parameters / 1e6:.1f}M parameters on one core"
    )
    for name in ("", "tokens/s", "ratio", "first step after"):
        made.add_column(name, justify="right" if name else "left")
    made.add_row("training", f"{figures.training:,.0f}", "1", "")
    for shuffle, supplied in figures.supplied.items():
        made.add_row(
            f"data.shuffle {shuffle}",
            f"{supplied:,.0f}",
            f"{figures.ratios[shuffle]:.0f}",
            f"{figures.first_step[shuffle]:.1f} s",
        )
    return made


def measure_stream(config: Config, folder: Path, plan: Plan) -> StreamFigures:
    """Blocks of training steps in this process before and after streaming under each shuffle.

    Ray must be running.

    Args:
        config: model, estimator and training of the run; its data and steps are replaced.
        folder: an empty folder for rows and run directory.
        plan: how much.
    """
    config = _fitted(config, folder, plan)
    jobs = {shuffle: _job(config, shuffle) for shuffle in SHUFFLES}
    job = jobs["window"]
    RunDirectory.open(job.config, job.manifest.fingerprint, resume=False)
    supplied: dict[str, float] = {}
    first_step: dict[str, float] = {}
    with process_group_of_one(gpu=False):
        worker = Worker(job, Checkpoints.direct(config, job.run))
        rows = read_steps(job.train, job.order, 0, job.steps)
        _train(worker, rows, plan.warm_up)
        trained = [_train(worker, rows, plan.steps) for _ in range(plan.blocks)]
        for shuffle in SHUFFLES:
            whole = jobs[shuffle]
            first_step[shuffle], supplied[shuffle] = _supply(whole.train, whole.order, config)
            trained += [_train(worker, rows, plan.steps) for _ in range(plan.blocks)]
    training = float(np.median(trained))
    return StreamFigures(
        parameters=sum(p.numel() for p in worker.engine.module.parameters()),
        megabytes=sum(file.size for source in job.train.files for file in source) / 1e6,
        training=training,
        supplied=supplied,
        first_step=first_step,
        ratios={shuffle: speed / training for shuffle, speed in supplied.items()},
    )


def _fitted(config: Config, folder: Path, plan: Plan) -> Config:
    data = write_random_rows(
        folder / "data",
        lengths=np.full(plan.rows, plan.length),
        prompt_lengths=np.full(plan.rows, plan.prompt_length),
        vocabulary_size=plan.vocabulary_size,
    )
    steps = plan.warm_up + (1 + len(SHUFFLES)) * plan.blocks * plan.steps
    return config.model_copy(
        update={
            "run_dir": str(folder / "run"),
            "checkpoints": CheckpointsSection(),
            "data": config.data.model_copy(update={"folder": str(data), "sources": []}),
            # One step more than is run: the last one would validate.
            "training": config.training.model_copy(
                update={"steps": steps + 1, "epochs": None, "validate_every": 0}
            ),
            "cluster": config.cluster.model_copy(update={"workers": 1, "gpus_per_worker": 0}),
        }
    )


def _job(config: Config, shuffle: Literal["window", "full"]) -> Job:
    data = config.data.model_copy(update={"shuffle": shuffle})
    return make_job(config.model_copy(update={"data": data}), RunDirectory(config.run_dir))


def _train(worker: Worker, rows: Iterator[StepRows], steps: int) -> float:
    """Tokens per second of some training steps, reading their rows left out."""
    tokens, seconds = 0, 0.0
    for batch in itertools.islice(rows, steps):
        started = time.perf_counter()
        problem = worker.step(batch)
        if problem is not None:
            raise RunError(f"bench: {problem}")
        seconds += time.perf_counter() - started
        tokens += sum(map(len, batch.input_ids))
    return tokens / seconds


def _supply(rows: TrainingRows, order: Steps, config: Config) -> tuple[float, float]:
    """Seconds until the first step of an epoch for one worker, then tokens per second.

    The last fifth is left out, in which nothing is read any more.
    """
    steps = order.steps_per_epoch
    dataset = stream_dataset(rows, order, 0, steps, 1, config.data.rows_per_block)
    dataset.context.execution_options.preserve_order = True
    started = time.perf_counter()
    (shard,) = dataset.streaming_split(1, equal=True)
    stream = iterate_steps(shard.iter_batches, order, 0, 1)
    next(stream)
    first = time.perf_counter()
    tokens = 0
    for batch in itertools.islice(stream, steps * 4 // 5):
        tokens += sum(map(len, batch.input_ids))
    return first - started, tokens / (time.perf_counter() - first)
