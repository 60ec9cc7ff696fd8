"""raymdm sweep -c FILE … : train every arm with every seed, then say which differences are real.

    raymdm sweep -c quickstart --set run_dir=runs/quickstart

Leaves a sweep directory: sweep.json (design and state of every trial), trials/ (a run directory
each), summary.json and report.html. The same command again finishes only what is missing.
"""

import sys
import time
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from raymdm.cluster import start_ray
from raymdm.command import (
    ConfigFiles,
    DumpConfig,
    Imports,
    Overrides,
    Verbose,
    reports_errors,
    run_as_program,
    settings,
)
from raymdm.compare import compare_sweep
from raymdm.config import Config
from raymdm.data.manifest import read_manifest
from raymdm.errors import CheckpointError, RunError
from raymdm.evaluations.run import check_evaluation
from raymdm.sweeps import Trial, make_design, run_sweep
from raymdm.sweeps.driver import check_fits, check_question, choose_path
from raymdm.sweeps.trial import has_ended, trial_state
from raymdm.training import RunDirectory
from raymdm.training.job import make_job
from raymdm.training.run_directory import read_json


@reports_errors
def main(
    config: ConfigFiles = None,
    set_: Overrides = None,
    imports: Imports = None,
    dump_config: DumpConfig = False,
    verbose: Verbose = False,
) -> None:
    """Train every arm with every seed on Ray Tune, evaluate each run, and compare the arms.

    Arms are overlays on one configuration (`sweep.arms`), run with the same `sweep.seeds` and, if
    given, at settings drawn from `sweep.axes`. A run that diverges is an outcome and is not
    repeated; one lost to infrastructure is retried with its seed. The same command again finishes
    only what is missing.

    Example: raymdm sweep -c quickstart --set run_dir=runs/quickstart
    """
    checked = settings(config, set_, imports, dump_config)
    sweep(checked, verbose=verbose)


def sweep(config: Config, *, verbose: bool = False) -> None:
    """Run a sweep and print its verdict.

    Raises:
        UserError: design, data, directory or cluster do not fit.
        RunError: trials that never finished, after their retries.
    """
    trials = make_design(config)
    check_trials(config, trials)
    with start_ray(config.cluster.address, verbose=verbose):
        check_fits(config, choose_path(config))
        missing = sum(not _ended(trial) for trial in trials)
        steps = make_job(trials[0].config, RunDirectory(trials[0].config.run_dir)).steps
        typer.echo(
            f"{len(trials)} trials ({len(config.sweep.arms)} arms x {len(config.sweep.seeds)} seeds"
            f"{f' x {config.sweep.samples} settings' if config.sweep.axes else ''}), {missing} to "
            f"run, {steps} steps each; sweep directory {Path(config.run_dir).absolute()}",
            err=True,
        )
        with _progress(len(trials), len(trials) - missing) as report:
            run_sweep(config, trials, report)
    compare_sweep(Path(config.run_dir))
    lost = [trial.name for trial in trials if not _ended(trial)]
    if lost:
        raise RunError(
            f"{len(lost)} of {len(trials)} trials did not finish: {', '.join(lost[:5])}; the same "
            "command again runs only them"
        )


def check_trials(config: Config, trials: list[Trial]) -> None:
    """Everything a user can have got wrong, before the first trial starts.

    Raises:
        UserError: data that does not fit an arm, or a directory that holds something else.
    """
    folder = Path(config.run_dir).absolute()
    if folder.exists() and any(folder.iterdir()) and not read_json(folder / "sweep.json"):
        raise CheckpointError(f"{folder} is not empty and is no sweep; choose another run_dir")
    check_question(config, folder)
    checked = set()
    for trial in trials:
        run = RunDirectory(trial.config.run_dir)
        if run.config.exists():
            run.check_same(trial.config)
            run.check_data(trial.config, read_manifest(trial.config.data.folder).fingerprint)
        kind = (trial.arm, str(trial.settings))
        if kind not in checked:
            make_job(trial.config, run)
            check_evaluation(trial.config)
            checked.add(kind)


def _ended(trial: Trial) -> bool:
    return has_ended(RunDirectory(trial.config.run_dir))


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


if __name__ == "__main__":
    run_as_program(main)
