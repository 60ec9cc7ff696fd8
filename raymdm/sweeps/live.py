"""Trials as they end."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from raymdm.sweeps.design import Trial
from raymdm.sweeps.trial import has_ended, trial_state
from raymdm.training import RunDirectory
from raymdm.training.run_directory import read_json


@contextmanager
def watch_trials(title: str, trials: list[Trial], metric: str) -> Iterator["_progress"]:
    """To be replaced."""
    done = sum(has_ended(RunDirectory(trial.config.run_dir)) for trial in trials)
    with _progress(len(trials), done) as report:
        yield report


class _progress:
    """A bar in a terminal; a line for every trial that ends in any case."""

    def __init__(self, total: int, done: int) -> None:
        self.console = Console(stderr=True)
        self.started = time.monotonic()
        self.total, self.done = total, done
        self.bar = Progress(
            TextColumn("trials"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            disable=not sys.stderr.isatty(),
        )
        self.task = self.bar.add_task("trials", total=total, completed=done)

    def __enter__(self) -> "_progress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, trial: Trial) -> None:
        run = RunDirectory(trial.config.run_dir)
        self.done += 1
        self.bar.update(self.task, completed=self.done)
        final = read_json(run.scores).get("final")
        outcome = trial_state(run)
        if outcome in ("failed", "diverged"):
            outcome = f"{outcome}: {run.status().get('message')}"
        elif final:
            outcome = f"accuracy {final['accuracy']:.1%}, NELBO {final['nelbo_per_token']:.4f}"
        seconds = time.monotonic() - self.started
        self.console.print(
            f"[{self.done}/{self.total}] {trial.name}: {outcome}  ({seconds:.0f} s)",
            highlight=False,
            markup=False,
        )

    def add(self, trials: list[Trial]) -> None:
        """More."""
        self.total += len(trials)
