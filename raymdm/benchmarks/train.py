"""Tokens per second of our worker loop against a bare PyTorch loop, in alternating blocks."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from raymdm.benchmarks.alternation import TOLERANCE, alternate, check_same_work, ratio
from raymdm.benchmarks.bare_loop import BareLoop, draw_batches
from raymdm.benchmarks.device import wait_for_device
from raymdm.benchmarks.request import Report, Request
from raymdm.benchmarks.rows import write_random_rows
from raymdm.config import Config, read_config
from raymdm.config.training import CheckpointsSection
from raymdm.data.stream import read_steps
from raymdm.errors import RunError
from raymdm.training import RunDirectory
from raymdm.training.checkpoint import Checkpoints
from raymdm.training.engine import process_group_of_one
from raymdm.training.job import Job, make_job
from raymdm.training.worker import Worker

_BASE: dict[str, Any] = {
    "training": {"batch_size": 16, "learning_rate": 1e-3, "schedule": "constant"},
}


@dataclass(frozen=True)
class Plan:
    """Size of the measurement."""

    blocks: int = 25
    steps: int = 2
    warm_up: int = 5
    vocabulary_size: int = 4096
    length: int = 128
    prompt_length: int = 32

    @property
    def total(self) -> int:
        """Steps of each loop."""
        return self.warm_up + self.blocks * self.steps


@dataclass(frozen=True)
class TrainingFigures:
    """What was measured.

    Attributes:
        parameters: weights of the model.
        steps: measured steps of each loop.
        ours: tokens per second of our worker loop, median over the blocks.
        bare: the same of the bare loop.
        ratio: ours / bare of neighbouring blocks, median.
        quartiles: of that ratio.
        loss_difference: largest relative difference between the two loops' losses.
        drawing: seconds of drawing rates, weights and masks over those of a step of ours, median.
    """

    parameters: int
    steps: int
    ours: float
    bare: float
    ratio: float
    quartiles: tuple[float, float]
    loss_difference: float
    drawing: float


def bench(request: Request) -> Report:
    """Figures of the default model, or of the one that was asked for."""
    config = request.settings({**read_config(["models/5m"]), **_BASE})
    plan = Plan(blocks=request.blocks or Plan.blocks)
    figures = measure_training(config, request.folder, plan)
    return Report([table(figures)], asdict(figures))


def table(figures: TrainingFigures) -> Table:
    """Both loops and their ratio."""
    low, high = figures.quartiles
    made = Table(
        title=f"{figures.parameters / 1e6:.1f}M parameters, {figures.steps} steps of each loop",
        caption=f"same losses up to {figures.loss_difference:.0e} (relative)",
    )
    made.add_column("loop")
    made.add_column("tokens/s", justify="right")
    made.add_column("ratio (quartiles)", justify="right")
    made.add_row("bare PyTorch", f"{figures.bare:,.0f}", "1")
    shown = f"{figures.ratio:.3f} ({low:.3f} to {high:.3f})"
    made.add_row("raymdm worker", f"{figures.ours:,.0f}", shown)
    made.add_row("  of it drawing t and masks", "", f"{figures.drawing:.2%} of a step")
    return made


def measure_training(config: Config, folder: Path, plan: Plan) -> TrainingFigures:
    """Run both loops over the same random rows; one worker, in this process.

    Args:
        config: model, estimator and training of the run; its data and steps are replaced.
        folder: an empty folder for rows and run directory.
        plan: how much.

    Raises:
        RunError: the loops did not train the same model, so their speeds cannot be compared.
    """
    config = fitted(config, folder, plan)
    job = make_job(config, RunDirectory(config.run_dir))
    RunDirectory.open(config, job.manifest.fingerprint, resume=False)
    with process_group_of_one(gpu=config.cluster.gpus_per_worker > 0):
        worker = Worker(job, Checkpoints.direct(config, job.run))
        batches = draw_batches(job, worker.estimator, plan.total, worker.device)
        bare = BareLoop(job, worker.device)
        tokens = [batch.tokens for batch in batches]
        losses, seconds = alternate(
            (_our_step(job, worker), lambda: bare.step(batches[bare.done])),
            blocks=plan.blocks,
            steps=plan.steps,
            warm_up=plan.warm_up,
        )
    drawing = _drawing_seconds(job, worker, plan.blocks)
    difference = float(np.max(np.abs(losses[0] / losses[1] - 1)))
    hint = "training in bf16 or with overrides of DeepSpeed is not comparable"
    check_same_work(difference, TOLERANCE["fp32"], "the two loops' losses", hint)
    per_block = np.array(tokens[plan.warm_up :]).reshape(plan.blocks, plan.steps).sum(1)
    speeds = per_block / seconds
    found = ratio(speeds[0], speeds[1])
    return TrainingFigures(
        parameters=sum(p.numel() for p in bare.parameters),
        steps=plan.blocks * plan.steps,
        ours=float(np.median(speeds[0])),
        bare=float(np.median(speeds[1])),
        ratio=found.median,
        quartiles=(found.low, found.high),
        loss_difference=difference,
        drawing=float(drawing / np.median(seconds[0] / plan.steps)),
    )


def fitted(config: Config, folder: Path, plan: Plan) -> Config:
    """The configuration on random rows in `folder`: one worker, as many steps as planned."""
    rows, length = max(512, 2 * config.training.batch_size), plan.length
    data = write_random_rows(
        folder / "data",
        lengths=np.random.default_rng(0).integers(length - length // 8, length + 1, rows),
        prompt_lengths=np.full(rows, plan.prompt_length),
        vocabulary_size=plan.vocabulary_size,
    )
    return config.model_copy(
        update={
            "run_dir": str(folder / "run"),
            "checkpoints": CheckpointsSection(),
            "data": config.data.model_copy(update={"folder": str(data), "sources": []}),
            # One step more than is run: the last one would validate.
            "training": config.training.model_copy(
                update={"steps": plan.total + 1, "epochs": None, "validate_every": 0}
            ),
            "cluster": config.cluster.model_copy(update={"workers": 1}),
        }
    )


def _our_step(job: Job, worker: Worker) -> Callable[[], float]:
    """One step of the worker as `run_in_process` runs it, reading its rows included."""
    rows = read_steps(job.train, job.order, 0, job.steps)

    def step() -> float:
        problem = worker.step(next(rows))
        if problem is not None:
            raise RunError(f"bench: {problem}")
        assert worker.sink is not None
        return float(worker.sink.rows[-1]["loss"])

    return step


def _drawing_seconds(job: Job, worker: Worker, steps: int) -> float:
    """Median seconds of drawing a step's rates, weights and masks, as the worker draws them."""
    config, estimator = job.config, worker.estimator
    seconds = []
    for rows in read_steps(job.train, job.order, 0, min(steps, job.steps)):
        batch = worker.collate(rows).to(worker.device)
        wait_for_device()
        started = time.perf_counter()
        t = estimator.draw_time(config.seed, rows.step, config.training.batch_size)
        estimator.weights(batch, t)
        estimator.views(batch, t, estimator.draw_noise(config.seed, rows.epochs, batch))
        wait_for_device()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))
