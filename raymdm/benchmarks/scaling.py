"""Weak scaling: what two workers train in the time of one, and where the rest goes.

The same training five ways, taking turns: one process and two without Ray, apart and in one process
group, and one worker and two of Ray Train. Each step from one to the next is one cause.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from raymdm.benchmarks.faults import Run
from raymdm.benchmarks.processes import train_in_processes
from raymdm.benchmarks.rows import write_random_rows
from raymdm.config import Config, read_config
from raymdm.config.loading import validate
from raymdm.errors import RunError

ROWS = 16
"""Rows a worker and step."""
_STEPS = 30
_WARM_UP = 5


@dataclass(frozen=True)
class ScalingFigures:
    """Tokens/s, medians over steps; every worker trains as many rows a step as one alone.

    Attributes:
        process: one process, no Ray.
        apart: two of them at once that share the machine and nothing else, both together.
        group: two in one process group, which sum their gradients.
        alone: one worker of Ray Train, rows by Ray Data.
        together: two of them.
        waiting: share of a step of `together` that goes into waiting for rows.
        cores: of the machine.
    """

    process: float
    apart: float
    group: float
    alone: float
    together: float
    waiting: float
    cores: int

    @property
    def efficiency(self) -> float:
        """Of two workers of Ray Train: 1 where they train twice as much as one."""
        return self.together / (2 * self.alone)


def scaling_table(figures: ScalingFigures) -> Table:
    """The five speeds, and what each cause takes of two workers."""
    made = Table(
        title=f"5M parameters, {ROWS} rows a worker and step, one thread a worker, "
        f"{figures.cores} cores"
    )
    made.add_column("")
    made.add_column("tokens/s", justify="right")
    made.add_column("lost", justify="right")
    rows = [
        ("one process", figures.process, ""),
        ("two, apart: they share the machine", figures.apart, 2 * figures.process),
        ("two in one process group: and sum gradients", figures.group, figures.apart),
        ("two workers of Ray Train: and Ray's processes", figures.together, figures.group),
        ("one worker of Ray Train", figures.alone, figures.process),
    ]
    for name, speed, before in rows:
        lost = f"{1 - speed / before:.1%}" if isinstance(before, float) else ""
        made.add_row(name, f"{speed:,.0f}", lost)
    made.add_section()
    made.add_row("weak-scaling efficiency of Ray Train's workers", f"{figures.efficiency:.2f}", "")
    made.add_row("of their steps: waiting for rows", f"{figures.waiting:.1%}", "")
    return made


def measure_scaling(folder: Path, rounds: int = 2, steps: int = _STEPS) -> ScalingFigures:
    """The five ways take turns; medians over all their steps but the first few.

    Raises:
        RunError: a run failed.
    """
    config = _config(folder / "data", steps)
    ways: dict[str, Callable[[Path], list[pd.DataFrame]]] = {
        "process": lambda where: _processes(config, where, runs=1, workers=1),
        "apart": lambda where: _processes(config, where, runs=2, workers=1),
        "group": lambda where: _processes(config, where, runs=1, workers=2),
        "alone": lambda where: [train_through_ray(_of(config, 1, where), where)],
        "together": lambda where: [train_through_ray(_of(config, 2, where), where)],
    }
    measured: dict[str, list[list[pd.DataFrame]]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, way in ways.items():
            where = folder / f"{turn}-{name}"
            where.mkdir(parents=True)
            measured[name].append([metrics[_WARM_UP:] for metrics in way(where)])
    speeds = {name: _speed(turns) for name, turns in measured.items()}
    together = pd.concat([metrics for (metrics,) in measured["together"]])
    seconds = 2 * ROWS / together["samples_per_second"]
    waiting = float((together["data_wait_seconds"] / seconds).median())
    return ScalingFigures(**speeds, waiting=waiting, cores=os.cpu_count() or 1)


def train_through_ray(config: Config, folder: Path) -> pd.DataFrame:
    """Metrics of a run of `raymdm train` in a process of its own.

    Raises:
        RunError: it failed.
    """
    run = Run(config, folder)
    run.start()
    try:
        if run.wait():
            raise RunError(f"{folder}: the run failed\n{run.log()[-2000:]}")
    finally:
        run.end()
    return pd.read_parquet(run.run.metrics)


def _processes(config: Config, folder: Path, runs: int, workers: int) -> list[pd.DataFrame]:
    configs = [_of(config, workers, folder / str(number)) for number in range(runs)]
    for each in configs:
        Path(each.run_dir).mkdir(parents=True)
    train_in_processes(configs, workers, folder)
    return [pd.read_parquet(Path(each.run_dir) / "metrics.parquet") for each in configs]


def _speed(turns: list[list[pd.DataFrame]]) -> float:
    """Of runs at the same time the sum, of turns the median over all their steps."""
    return float(
        sum(
            np.median(np.concatenate([metrics["tokens_per_second"] for metrics in same]))
            for same in zip(*turns, strict=True)
        )
    )


def _of(config: Config, workers: int, folder: Path) -> Config:
    training = config.training.model_copy(update={"batch_size": ROWS * workers})
    cluster = config.cluster.model_copy(update={"workers": workers})
    return config.model_copy(
        update={"training": training, "cluster": cluster, "run_dir": str(folder / "run")}
    )


def _config(folder: Path, steps: int) -> Config:
    rows, length = 512, 128
    data = write_random_rows(
        folder,
        lengths=np.full(rows, length),
        prompt_lengths=np.full(rows, length // 4),
        vocabulary_size=4096,
    )
    training = {"steps": steps, "batch_size": ROWS}
    return validate(
        {**read_config(["models/5m"]), "data": {"folder": str(data)}, "training": training}
    )
