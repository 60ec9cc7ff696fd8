"""Workers: do they change the result (no), and how much faster are two than one.

Real runs of `raymdm train`, one after the other: the same training on one and two workers under
every ZeRO stage; and, for the speed, twice the rows on two workers (weak scaling).
"""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from raymdm.benchmarks.faults import Run, fault_config
from raymdm.benchmarks.request import Report, Request
from raymdm.benchmarks.rows import write_random_rows
from raymdm.config import Config, read_config
from raymdm.config.loading import validate
from raymdm.errors import RunError

_STEPS = 30
_WARM_UP = 5
_ROWS = 16


@dataclass(frozen=True)
class ScalingFigures:
    """Weak scaling: every worker trains as many rows a step as the one alone.

    Attributes:
        alone: tokens/s of one worker, median over the steps.
        together: tokens/s of two.
        efficiency: together / (2 alone), of steps that take turns in time by whole runs.
        waiting: share of a step of the two that goes into waiting for data.
        cores: of the machine.
    """

    alone: float
    together: float
    efficiency: float
    waiting: float
    cores: int


def bench(request: Request) -> Report:
    """Losses under every stage and number of workers; weak scaling of a model of 5M parameters."""
    differences = measure_spread(request.folder / "spread")
    scaling = measure_scaling(request.folder / "scaling")
    named = {f"{workers} workers, ZeRO {stage}": d for (workers, stage), d in differences.items()}
    return Report(
        [spread_table(differences), scaling_table(scaling)],
        {"differences": named, "scaling": asdict(scaling)},
    )


def spread_table(differences: dict[tuple[int, int], float]) -> Table:
    """One row a stage, one column a number of workers."""
    made = Table(title="largest relative difference of any step's loss to 1 worker, ZeRO 0")
    made.add_column("ZeRO stage")
    counts = sorted({workers for workers, _ in differences})
    for workers in counts:
        made.add_column(f"{workers} worker{'s' * (workers > 1)}", justify="right")
    for stage in sorted({stage for _, stage in differences}):
        made.add_row(str(stage), *(f"{differences[workers, stage]:.1e}" for workers in counts))
    return made


def scaling_table(figures: ScalingFigures) -> Table:
    """Both speeds and the efficiency."""
    made = Table(
        title=f"5M parameters, {_ROWS} rows a worker and step, one thread a worker, "
        f"{figures.cores} cores"
    )
    made.add_column("")
    made.add_column("", justify="right")
    made.add_row("1 worker", f"{figures.alone:,.0f} tokens/s")
    made.add_row("2 workers", f"{figures.together:,.0f} tokens/s")
    made.add_row("weak-scaling efficiency", f"{figures.efficiency:.2f}")
    made.add_row("of a step of two: waiting for data", f"{figures.waiting:.1%}")
    return made


def measure_spread(
    folder: Path, counts: tuple[int, ...] = (1, 2), stages: tuple[int, ...] = (0, 1, 2, 3)
) -> dict[tuple[int, int], float]:
    """Largest relative difference of the losses to those of the first of these, by workers and
    stage.
    """
    folder.mkdir()
    config = fault_config(folder, zero_stage=0, steps=_STEPS)
    losses = {}
    for workers in counts:
        for stage in stages:
            name = f"{workers}-workers-zero{stage}"
            metrics = _train(config, folder / name, {"workers": workers}, {"zero_stage": stage}, {})
            losses[workers, stage] = metrics["loss"].to_numpy()
    reference = losses[counts[0], stages[0]]
    return {key: float(np.abs(each / reference - 1).max()) for key, each in losses.items()}


def measure_scaling(folder: Path, rounds: int = 2) -> ScalingFigures:
    """Runs of one worker and of two take turns; medians over all their steps but the first."""
    folder.mkdir()
    config = _large(folder)
    measured: dict[int, list[pd.DataFrame]] = {1: [], 2: []}
    for turn in range(rounds):
        for workers in measured:
            metrics = _train(
                config,
                folder / f"{turn}-{workers}-workers",
                {"workers": workers},
                {},
                {"batch_size": _ROWS * workers},
            )
            measured[workers].append(metrics[_WARM_UP:])
    alone, together = (pd.concat(measured[workers]) for workers in (1, 2))
    speeds = [float(each["tokens_per_second"].median()) for each in (alone, together)]
    seconds = 2 * _ROWS / together["samples_per_second"]
    return ScalingFigures(
        alone=speeds[0],
        together=speeds[1],
        efficiency=speeds[1] / (2 * speeds[0]),
        waiting=float((together["data_wait_seconds"] / seconds).median()),
        cores=os.cpu_count() or 1,
    )


def _train(
    config: Config, folder: Path, cluster: dict, deepspeed: dict, training: dict
) -> pd.DataFrame:
    folder.mkdir()
    run = Run(
        config.model_copy(
            update={
                "run_dir": str(folder / "run"),
                "cluster": config.cluster.model_copy(update=cluster),
                "deepspeed": config.deepspeed.model_copy(update=deepspeed),
                "training": config.training.model_copy(update=training),
            }
        ),
        folder,
    )
    run.start()
    try:
        if run.wait():
            raise RunError(f"{folder}: the run failed\n{run.log()[-2000:]}")
    finally:
        run.end()
    return pd.read_parquet(run.run.metrics)


def _large(folder: Path) -> Config:
    rows, length = 512, 128
    data = write_random_rows(
        folder / "data",
        lengths=np.full(rows, length),
        prompt_lengths=np.full(rows, length // 4),
        vocabulary_size=4096,
    )
    training = {"steps": _STEPS, "batch_size": _ROWS}
    return validate(
        {**read_config(["models/5m"]), "data": {"folder": str(data)}, "training": training}
    )
