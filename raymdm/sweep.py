"""raymdm sweep -c FILE … : train every arm with every seed, then say which differences are real.

    raymdm sweep -c quickstart --set run_dir=runs/quickstart

Leaves a sweep directory: sweep.json (design and state of every trial), trials/ (a run directory
each), summary.json and report.html. The same command again finishes only what is missing.
"""

from pathlib import Path
from typing import Annotated

import typer

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
from raymdm.compare import compare_sweep, wide_console
from raymdm.config import Config
from raymdm.data.manifest import read_manifest
from raymdm.errors import CheckpointError, ConfigurationError, RunError
from raymdm.evaluations.run import check_evaluation
from raymdm.sweeps import Trial, make_design, run_sweep
from raymdm.sweeps.driver import check_fits, check_question, choose_path
from raymdm.sweeps.live import watch_trials
from raymdm.sweeps.plan import Plan, check_primary_test, make_plan
from raymdm.sweeps.plan_table import print_plan
from raymdm.sweeps.trial import has_ended
from raymdm.training import RunDirectory
from raymdm.training.job import make_job
from raymdm.training.run_directory import read_json


@reports_errors
def main(
    config: ConfigFiles = None,
    set_: Overrides = None,
    imports: Imports = None,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Print what the sweep would cost and could show, and train nothing."
        ),
    ] = False,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            metavar="TOKENS/S",
            help="With --plan: speed of a trial, every view's tokens counted, instead of measuring "
            "some steps of every arm here.",
        ),
    ] = None,
    plan_steps: Annotated[
        int, typer.Option(min=1, help="With --plan: training steps measured of every arm.")
    ] = 20,
    sd: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="With --plan: the metric's standard deviation between seeds; default: that of the "
            "baseline's finished runs.",
        ),
    ] = None,
    dump_config: DumpConfig = False,
    verbose: Verbose = False,
) -> None:
    """Train every arm with every seed on Ray Tune, evaluate each run, and compare the arms.

    Arms are overlays on one configuration (`sweep.arms`), run with the same `sweep.seeds` and, if
    given, at settings drawn from `sweep.axes`. A run that diverges is an outcome and is not
    repeated; one lost to infrastructure is retried with its seed. The same command again finishes
    only what is missing. `--plan` says beforehand what it costs and what it can show.

    Example: raymdm sweep -c quickstart --set run_dir=runs/quickstart
    """
    checked = settings(config, set_, imports, dump_config)
    if plan:
        print_plan(plan_sweep(checked, steps=plan_steps, rate=rate, sd=sd), wide_console())
    elif rate is not None or sd is not None:
        raise ConfigurationError("--rate and --sd belong to --plan")
    else:
        sweep(checked, verbose=verbose)


def plan_sweep(
    config: Config, *, steps: int = 20, rate: float | None = None, sd: float | None = None
) -> Plan:
    """What a sweep would cost and could show; arguments as for `make_plan`. Needs no cluster.

    Raises:
        ConfigurationError: its primary test cannot reach significance.
        UserError: design, data or directory do not fit.
    """
    check_primary_test(config)
    trials = make_design(config)
    check_trials(config, trials)

    def measuring(arm: str) -> None:
        typer.echo(f"{arm}: measuring {steps} steps", err=True)

    return make_plan(config, trials, steps=steps, rate=rate, sd=sd, watch=measuring)


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
        typer.echo(
            f"{len(trials)} trials ({len(config.sweep.arms)} arms x {len(config.sweep.seeds)} seeds"
            f"{f' x {config.sweep.samples} settings' if config.sweep.axes else ''}), {missing} to "
            f"run, {_steps(trials)} steps each; sweep directory {Path(config.run_dir).absolute()}",
            err=True,
        )
        with watch_trials("trials", trials, config.compare.metric) as report:
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


def _steps(trials: list[Trial]) -> str:
    """Steps of a run, or the least and most of them."""
    given = {trial.config.training.steps for trial in trials}
    if None in given:
        return str(make_job(trials[0].config, RunDirectory(trials[0].config.run_dir)).steps)
    ends = sorted({min(filter(None, given)), max(filter(None, given))})
    return " to ".join(map(str, ends))


def _ended(trial: Trial) -> bool:
    return has_ended(RunDirectory(trial.config.run_dir))


if __name__ == "__main__":
    run_as_program(main)
