"""Seconds of a sweep's trial that are not training steps, measured on a real sweep."""

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from raymdm.benchmarks.request import Report, Request
from raymdm.cluster import start_ray
from raymdm.config import Config, read_config
from raymdm.errors import RunError
from raymdm.prepare import prepare
from raymdm.sweeps import Trial, make_design, run_sweep
from raymdm.sweeps.driver import check_fits, choose_path
from raymdm.training import RunDirectory
from raymdm.training.run_directory import read_json

# One arm is enough: every trial costs the same. A minute or more of training steps in each.
_BASE: dict[str, Any] = {
    "model": {"hidden_size": 64, "layers": 2, "heads": 4},
    "training": {"batch_size": 64, "steps": 2000},
    "sweep": {"arms": {"standard": {}}, "seeds": list(range(16))},
    "cluster": {"address": "local"},
}


@dataclass(frozen=True)
class TrialTimes:
    """When a trial was there, on one clock, and what it did.

    Attributes:
        began: its run directory was opened (its process was up by then).
        ended: the driver heard of its end.
        training: seconds in training steps.
        evaluation: seconds of scoring the starting and the final weights.
    """

    began: float
    ended: float
    training: float
    evaluation: float


@dataclass(frozen=True)
class SweepFigures:
    """Seconds, per trial where nothing else is said.

    Attributes:
        path: `process` or `trainer`.
        trials: how many.
        concurrency: at the same time.
        wall: of the whole sweep, Ray's start included.
        ray_start: of Ray's start, once.
        training: in training steps, mean.
        share: of the time of all places in which trials run, what training steps took.
        overhead: everything else (wall · concurrency - training) / trials.
        evaluation: scoring, part of the overhead, mean.
        first: not training, from the sweep's start to a process's first trial's end, median.
        later: not training, from the end of a process's last trial to its next one's, median; NaN
            where no process had two.
    """

    path: str
    trials: int
    concurrency: int
    wall: float
    ray_start: float
    training: float
    share: float
    overhead: float
    evaluation: float
    first: float
    later: float


def bench(request: Request) -> Report:
    """Figures of 16 trials, or of the sweep that was asked for."""
    place = {
        "run_dir": f"{request.folder}/sweep",
        "data": {"folder": f"{request.folder}/data"},
    }
    config = request.settings({**read_config(["tasks/addition"]), **_BASE, **place})
    figures = measure_sweep(config, verbose=request.verbose)
    # Not every sweep has a later trial, and JSON no NaN.
    later = None if math.isnan(figures.later) else figures.later
    return Report([table(figures)], {**asdict(figures), "later": later})


def table(figures: SweepFigures) -> Table:
    """Where a trial's seconds went."""
    made = Table(
        title=f"{figures.trials} trials, path {figures.path}",
        caption=f"{figures.wall:.0f} s in all, {figures.concurrency} at a time; "
        f"{figures.share:.0%} of their time in training steps (aim: 80%; 10 s of everything else)",
    )
    made.add_column("seconds per trial")
    made.add_column("mean or median", justify="right")
    made.add_row("training steps", f"{figures.training:.1f}")
    made.add_row("everything else", f"[bold]{figures.overhead:.1f}[/bold]")
    made.add_row("  of it evaluation", f"{figures.evaluation:.1f}")
    made.add_row("  a process's first trial", f"{figures.first:.1f}")
    if not math.isnan(figures.later):
        made.add_row("  its later trials", f"{figures.later:.1f}")
    made.add_row("starting Ray, once per sweep", f"{figures.ray_start:.1f}")
    return made


def measure_sweep(config: Config, *, verbose: bool = False) -> SweepFigures:
    """Prepare the data, run the sweep with no trial done before, and account for its time.

    Raises:
        RunError: a trial did not finish.
    """
    trials = make_design(config)
    started = time.time()
    with start_ray(config.cluster.address, verbose=verbose):
        ray_start = time.time() - started
        prepare(config, verbose=verbose)
        path = choose_path(config)
        concurrency = min(check_fits(config, path), len(trials))
        ends: dict[str, float] = {}
        began = time.time()
        run_sweep(config, trials, lambda trial: ends.update({trial.name: time.time()}))
        wall = time.time() - began + ray_start
    times = [_times(trial, ends) for trial in trials]
    first, later = split_by_process(times, began)
    training = sum(t.training for t in times)
    return SweepFigures(
        path=path,
        trials=len(trials),
        concurrency=concurrency,
        wall=wall,
        ray_start=ray_start,
        training=training / len(trials),
        share=training / (wall * concurrency),
        overhead=(wall * concurrency - training) / len(trials),
        evaluation=float(np.mean([t.evaluation for t in times])),
        first=float(np.median(first)),
        later=float(np.median(later)) if later else float("nan"),
    )


def _times(trial: Trial, ends: dict[str, float]) -> TrialTimes:
    run = RunDirectory(trial.config.run_dir)
    scores = read_json(run.scores)
    if not scores or trial.name not in ends:
        raise RunError(f"{run.path}: the trial did not finish, so nothing can be measured")
    return TrialTimes(
        # Written once, when the directory is opened.
        began=(run.path / "environment.json").stat().st_mtime,
        ended=ends[trial.name],
        training=training_seconds(pd.read_parquet(run.metrics)),
        evaluation=sum(score["seconds"] for score in scores.values() if score is not None),
    )


def training_seconds(metrics: pd.DataFrame) -> float:
    """Seconds in training steps alone.

    The first step (which waits for the data stream) and those at which the held-out NELBO was
    measured count as much as the median step: what they took beyond it is overhead.
    """
    seconds = metrics["seconds"].diff()
    seconds[metrics["validation_nelbo"].notna()] = np.nan
    return float(seconds.fillna(seconds.median()).sum())


def split_by_process(times: list[TrialTimes], started: float) -> tuple[list[float], list[float]]:
    """Seconds outside training steps of every process's first trial, and of all later ones.

    A trial belongs to the process whose last trial ended most recently before it began.
    """
    free: list[float] = []
    first: list[float] = []
    later: list[float] = []
    for trial in sorted(times, key=lambda trial: trial.began):
        waiting = [end for end in free if end <= trial.began]
        since = max(waiting, default=started)
        if waiting:
            free.remove(since)
        free.append(trial.ended)
        (later if waiting else first).append(trial.ended - since - trial.training)
    return first, later
