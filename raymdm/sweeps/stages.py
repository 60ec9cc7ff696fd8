"""A sweep from its first run to its last: calibration, search, then the seeds of the verdict."""

import sys
from pathlib import Path

import ray

from raymdm.config import Config
from raymdm.reinforcement.job import make_job_of
from raymdm.sweeps.adaptive import decide, first_seeds, sequential_design
from raymdm.sweeps.calibration import (
    keep_calibration,
    kept_calibration,
    measure_arms,
    seconds_per_step,
)
from raymdm.sweeps.checks import check_arms, check_runs
from raymdm.sweeps.design import Settings, Trial, make_design
from raymdm.sweeps.driver import choose_path, run_sweep, trial_resources
from raymdm.sweeps.live import watch_trials
from raymdm.sweeps.search import run_search
from raymdm.sweeps.trial import has_ended
from raymdm.training import RunDirectory
from raymdm.verdict.candidates import Candidate
from raymdm.verdict.results import setting_label
from raymdm.verdict.sequential import replay

_CALIBRATION_STEPS = 20


def run_stages(config: Config) -> list[Trial]:
    """Run what is missing of a sweep; Ray must be initialised.

    Returns:
        The trials that were planned: of all seeds, or of those that it took to decide.

    Raises:
        UserError, RunError: as for `run_search` and `run_sweep`.
    """
    seconds = _calibrate(config) if config.sweep.equalise == "seconds" else None
    chosen = None if config.sweep.search is None else _search(config, seconds)
    trials = make_design(config, chosen=chosen, seconds_per_pass=seconds)
    check_runs(trials)
    if seconds is not None or chosen is not None:  # else they were checked as they are
        check_arms(trials)
    return _run(config, trials)


def _run(config: Config, trials: list[Trial]) -> list[Trial]:
    folder, sweep = Path(config.run_dir).absolute(), config.sweep
    design = sequential_design(config)
    decision = None if design is None else replay(design, [])
    if design is not None and (folder / "sweep.json").is_file():
        decision = decide(design, folder)
    planned = trials if decision is None else first_seeds(trials, decision.seeds)
    settings = f" x {sweep.samples} settings" if sweep.axes else ""
    most = "" if design is None else f", at most {len(trials)}: looks at {design.looks} seeds"
    missing = sum(not has_ended(trial) for trial in planned)
    _say(
        f"{len(planned)} trials ({len(sweep.arms)} arms x {len(planned) // len(sweep.arms)} "
        f"seeds{settings}){most}, {missing} to run, {_steps(trials)} steps each; sweep directory "
        f"{folder}"
    )
    with watch_trials("trials", planned, config.compare.metric) as watch:
        run_sweep(config, planned, watch)
        while design is not None and all(map(has_ended, planned)):
            decision = decide(design, folder)
            words = ", ".join(f"{row.arm} {row.word}" for row in decision.arms)
            _say(f"look {decision.look} of {len(design.looks)}: {words}")
            if not decision.goes_on:
                break
            more = first_seeds(trials, decision.seeds)
            watch.add([trial for trial in more if trial not in planned])
            planned = more
            run_sweep(config, planned, watch)
    return planned


def _search(config: Config, seconds: dict[str, float] | None) -> dict[str, Settings]:
    """The settings of every arm, chosen by the held-out NELBO."""
    search = config.sweep.search
    assert search is not None
    _say(
        f"search ({search.method}): every arm's settings are chosen by the held-out NELBO, mean "
        f"over seeds {', '.join(map(str, search.seeds))}"
    )

    def ended(candidate: Candidate, count: int, total: int) -> None:
        what = candidate.message or f"NELBO {candidate.score:.4f} after {candidate.steps} steps"
        label = setting_label(candidate.settings)
        _say(f"[{count}/{total}] {candidate.name} {label}: {candidate.state}, {what}")

    best = run_search(config, seconds, ended)
    for arm, candidate in best.items():
        _say(f"{arm}: {setting_label(candidate.settings)}, NELBO {candidate.score:.4f}")
    return {arm: candidate.settings for arm, candidate in best.items()}


def _calibrate(config: Config) -> dict[str, float]:
    """Seconds of a pass of every arm, measured on a worker the first time the sweep is run."""
    folder = Path(config.run_dir).absolute()
    kept = kept_calibration(folder)
    if kept is not None:
        return kept
    resources = trial_resources(config, choose_path(config))
    gpus = config.cluster.gpus_per_worker
    remote = ray.remote(seconds_per_step).options(num_cpus=resources["cpu"], num_gpus=gpus)

    def measure(of: Config, steps: int) -> float:
        return float(ray.get(remote.remote(of, steps)))

    seconds = measure_arms(
        config, _CALIBRATION_STEPS, measure, lambda arm: _say(f"{arm}: measuring its speed")
    )
    keep_calibration(folder, seconds)
    return seconds


def _steps(trials: list[Trial]) -> str:
    """Steps of a run, or the least and most of them."""
    given = {trial.config.training.steps for trial in trials}
    if None in given:
        return str(make_job_of(trials[0].config, RunDirectory(trials[0].config.run_dir)).steps)
    ends = sorted({min(filter(None, given)), max(filter(None, given))})
    return " to ".join(map(str, ends))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
