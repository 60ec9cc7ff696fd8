"""raymdm sweep -c FILE … : train every arm with every seed, then say which differences are real.

    raymdm sweep -c quickstart --set run_dir=runs/quickstart

Leaves a sweep directory: sweep.json (design and state of every trial), trials/ (a run directory
each), search.json and search/ where settings were searched, summary.json and report.html. The same
command again finishes only what is missing.
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
from raymdm.errors import ConfigurationError, RunError
from raymdm.sweeps import make_design
from raymdm.sweeps.calibration import kept_calibration, measure_arms, seconds_per_step
from raymdm.sweeps.checks import check_arms, check_folder, check_runs
from raymdm.sweeps.driver import check_fits, choose_path
from raymdm.sweeps.plan import Plan, check_primary_test, make_plan, row_tokens
from raymdm.sweeps.plan_table import print_plan
from raymdm.sweeps.stages import run_stages
from raymdm.sweeps.trial import has_ended


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

    Arms are overlays on one configuration (`sweep.arms`), run with the same `sweep.seeds`. With
    `sweep.search` every arm's settings are chosen first, by the held-out NELBO on seeds of their
    own; `sweep.until: decided` adds seeds until the question is answered.

    A run that diverges is an outcome and is not repeated; one lost to infrastructure is retried
    with its seed. The same command again finishes only what is missing. `--plan` says beforehand
    what it costs and what it can show.

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
    """What a sweep would cost and could show. Needs no cluster.

    Args:
        config: the sweep's.
        steps: training steps of every arm that its speed is measured on, in this process.
        rate: tokens per second through the model of one trial, every view counted, instead.
        sd: as for `make_plan`.

    Raises:
        ConfigurationError: its primary test cannot reach significance.
        UserError: design, data or directory do not fit.
    """
    check_primary_test(config)
    trials = make_design(config)
    check_folder(config)
    check_arms(trials)
    policies = [trial.arm for trial in trials if trial.config.policy is not None]
    if policies:
        raise ConfigurationError(
            f"arm {policies[0]!r} has a policy, whose steps are rollouts, rewards and updates: "
            "--plan does not know what they take; run the sweep without it"
        )

    def measuring(arm: str) -> None:
        typer.echo(f"{arm}: measuring {steps} steps", err=True)

    if rate is None:
        seconds = measure_arms(config, steps, seconds_per_step, measuring)
    else:
        seconds = dict.fromkeys(config.sweep.arms, row_tokens(config) / rate)
    kept = kept_calibration(Path(config.run_dir))
    trials = make_design(config, seconds_per_pass=kept or seconds)
    if config.sweep.search is None:  # else the runs that are there have settings found by it
        check_runs(trials)
    return make_plan(config, trials, seconds, measured=steps if rate is None else None, sd=sd)


def sweep(config: Config, *, verbose: bool = False) -> None:
    """Run a sweep and print its verdict.

    Raises:
        UserError: design, data, directory or cluster do not fit.
        RunError: trials that never finished, after their retries.
    """
    trials = make_design(config)
    check_folder(config)
    check_arms(trials)
    with start_ray(config.cluster.address, verbose=verbose):
        check_fits(config, choose_path(config))
        trials = run_stages(config)
    compare_sweep(Path(config.run_dir))
    lost = [trial.name for trial in trials if not has_ended(trial)]
    if lost:
        raise RunError(
            f"{len(lost)} of {len(trials)} trials did not finish: {', '.join(lost[:5])}; the same "
            "command again runs only them"
        )


if __name__ == "__main__":
    run_as_program(main)
