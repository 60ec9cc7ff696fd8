"""What a sweep will cost and what it can show, before it runs: `raymdm sweep --plan`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import nan, prod
from pathlib import Path

import torch

from raymdm.config import Config
from raymdm.data.manifest import read_manifest
from raymdm.diffusion.passes import Passes, count_passes, step_passes
from raymdm.sweeps.adaptive import sequential_design
from raymdm.sweeps.design import Trial
from raymdm.sweeps.disk import bytes_kept, bytes_while_running
from raymdm.sweeps.driver import choose_path, trial_cpus
from raymdm.sweeps.trial import has_ended
from raymdm.training import RunDirectory
from raymdm.training.job import Job, make_job
from raymdm.verdict.power import Reach, can_reach, reach
from raymdm.verdict.results import read_sweep
from raymdm.verdict.spread_power import detectable_sd_ratio
from raymdm.verdict.statistics import spread


@dataclass(frozen=True)
class ArmPlan:
    """What an arm costs; ranges are over the settings drawn from the axes.

    Attributes:
        arm: its name.
        trials: of the arm.
        to_run: those that have not ended.
        steps: least and most of a run.
        forwards: passes of a run, least and most, its probe included.
        probe_forwards: of those the probe's, most.
        step_seconds: of one optimiser step.
        tokens_per_second: through the model, every view counted.
        seconds: of training and probing, over the trials to run.
        disk: bytes that stay, over all trials.
    """

    arm: str
    trials: int
    to_run: int
    steps: tuple[int, int]
    forwards: tuple[int, int]
    probe_forwards: int
    step_seconds: float
    tokens_per_second: float
    seconds: float
    disk: float


@dataclass(frozen=True)
class SearchPlan:
    """What choosing the settings costs, before the runs of the verdict; with halving at most.

    Attributes:
        candidates: of every arm.
        seeds: of every candidate.
        runs: of all arms.
        seconds: of training and probing, over all runs.
        halved: candidates that are behind are stopped on the way.
    """

    candidates: int
    seeds: int
    runs: int
    seconds: float
    halved: bool


@dataclass(frozen=True)
class Plan:
    """A sweep before it runs.

    Attributes:
        arms: in the order of the design.
        search: what goes before them; None without `sweep.search`.
        looks: seeds of an arm at every look, under `sweep.until: decided`.
        seeds: per arm.
        settings: drawn from the axes; 1 without.
        at_once: trials at the same time.
        longest: seconds of the longest trial to run.
        while_running: most bytes that the trials at the same time need besides what stays.
        reach: what the design can show of means.
        sd_ratio: the smallest ratio of standard deviations that the test of spreads sees with 80%
            power, or its inverse; infinite where it sees none.
        metric: the primary one.
        sd: the standard deviation between seeds, NaN where it is not known.
        sd_source: where it comes from.
        vary: the streams that the seeds vary; None means all.
        measured: steps per arm that the times come from; None where a rate was given.
    """

    arms: tuple[ArmPlan, ...]
    search: SearchPlan | None
    looks: tuple[int, ...] | None
    seeds: int
    settings: int
    at_once: int
    longest: float
    while_running: float
    reach: Reach
    sd_ratio: float
    metric: str
    sd: float
    sd_source: str
    vary: tuple[str, ...] | None
    measured: int | None

    @property
    def seconds(self) -> float:
        """Wall time of training and probing, with `at_once` trials at the same time."""
        runs = max(sum(arm.seconds for arm in self.arms) / self.at_once, self.longest)
        return runs + (self.search.seconds / self.at_once if self.search else 0.0)


def check_primary_test(config: Config) -> None:
    """Refuse a design whose primary test, Welch's, cannot reach significance.

    Raises:
        ConfigurationError: a single arm, or a single seed.
    """
    can_reach(len(config.sweep.seeds), len(config.sweep.arms) - 1)


def make_plan(
    config: Config,
    trials: list[Trial],
    seconds_per_pass: Mapping[str, float],
    *,
    measured: int | None = None,
    sd: float | None = None,
) -> Plan:
    """The plan of a design; nothing is written and nothing is started.

    Args:
        config: the sweep's.
        trials: the design.
        seconds_per_pass: by arm, of one row's forward and backward, measured or from a rate.
        measured: steps per arm that it was measured on; None where a rate was given.
        sd: standard deviation between seeds, in units of the primary metric, where it is known;
            else that of the baseline's finished runs, if there are two.

    Raises:
        ConfigurationError: see `check_primary_test`.
        UserError: data or model do not fit an arm.
    """
    check_primary_test(config)
    jobs: dict[tuple[str, str], Job] = {}
    for trial in trials:
        key = _kind(trial)
        if key not in jobs:
            jobs[key] = make_job(trial.config, RunDirectory(trial.config.run_dir))
    arms, longest = [], 0.0
    for arm in config.sweep.arms:
        own = [trial for trial in trials if trial.arm == arm]
        planned, longest_own = _arm(arm, own, jobs, seconds_per_pass[arm])
        arms.append(planned)
        longest = max(longest, longest_own)
    known, source = (sd, "as given") if sd is not None else _sd_so_far(config)
    at_once = trials_at_once(config)
    running = max(bytes_while_running(t.config, jobs[_kind(t)]) for t in trials)
    seeds, sweep, until = len(config.sweep.seeds), config.sweep, sequential_design(config)
    return Plan(
        tuple(arms),
        _search(config, trials, jobs, seconds_per_pass),
        None if until is None else until.looks,
        seeds,
        len({str(trial.settings) for trial in trials}),
        at_once,
        longest,
        running * at_once,
        reach(seeds, len(sweep.arms) - 1),
        detectable_sd_ratio(seeds, seeds, len(sweep.arms) - 1),
        config.compare.metric,
        known,
        source,
        None if sweep.vary is None else tuple(sweep.vary),
        measured,
    )


def _search(
    config: Config,
    trials: list[Trial],
    jobs: dict[tuple[str, str], Job],
    seconds_per_pass: Mapping[str, float],
) -> SearchPlan | None:
    """Every candidate as long as the arm's own run; what its settings change is not known."""
    search = config.sweep.search
    if search is None:
        return None
    axes = [len(axis.choice or []) for axis in search.axes.values()]
    candidates = prod(axes) if search.method == "grid" else search.samples
    seconds = 0.0
    for arm in config.sweep.arms:
        first = next(trial for trial in trials if trial.arm == arm)
        counted = _passes(first.config, jobs[_kind(first)])
        seconds += seconds_per_pass[arm] * counted.work * candidates * len(search.seeds)
    runs = candidates * len(search.seeds) * len(config.sweep.arms)
    return SearchPlan(
        candidates, len(search.seeds), runs, seconds, halved=search.halving is not None
    )


def _passes(config: Config, job: Job) -> Passes:
    return count_passes(config.estimator, config.training.batch_size, job.steps, len(job.train))


def trials_at_once(config: Config) -> int:
    """Trials that run together: `sweep.concurrency`, or as many as this machine holds."""
    if config.sweep.concurrency is not None:
        return config.sweep.concurrency
    # Ray starts with at least two, see `start_ray`.
    cpus = max(2, os.cpu_count() or 1)
    fits = int(cpus / trial_cpus(config, choose_path(config)) + 1e-9)
    if config.cluster.gpus_per_worker:
        fits = min(fits, torch.cuda.device_count() // config.cluster.workers)
    return max(1, fits)


def _arm(
    arm: str, trials: list[Trial], jobs: dict[tuple[str, str], Job], per_pass: float
) -> tuple[ArmPlan, float]:
    """An arm's plan, and the seconds of its longest trial to run."""
    passes, steps, seconds, disk = [], [], [], 0.0
    for trial in trials:
        job = jobs[_kind(trial)]
        counted = _passes(trial.config, job)
        passes.append(counted)
        steps.append(job.steps)
        disk += bytes_kept(trial.config, job)
        if not has_ended(trial):
            seconds.append(per_pass * counted.work)
    first = trials[0].config
    forwards = [each.forwards for each in passes]
    plan = ArmPlan(
        arm,
        len(trials),
        len(seconds),
        (min(steps), max(steps)),
        (min(forwards), max(forwards)),
        max(each.probe_forwards for each in passes),
        per_pass * step_passes(first.estimator, first.training.batch_size),
        row_tokens(first) / per_pass,
        sum(seconds),
        disk,
    )
    return plan, max(seconds, default=0.0)


def row_tokens(config: Config) -> float:
    """Mean tokens of a training row."""
    split = read_manifest(config.data.folder).splits["train"]
    return split.tokens / split.rows


def _kind(trial: Trial) -> tuple[str, str]:
    return trial.arm, str(trial.settings)


def _sd_so_far(config: Config) -> tuple[float, str]:
    """The baseline's spread between the seeds that have finished, in the first setting."""
    folder = Path(config.run_dir)
    if not (folder / "sweep.json").is_file():
        return nan, ""
    results = read_sweep(folder)
    metric = next((m for m in results.metrics if m.name == config.compare.metric), None)
    if metric is None:
        return nan, ""
    table = results.table(metric, results.settings[0])
    mine = table[(table["arm"] == results.baseline) & (table["state"] == "finished")]
    return spread(mine[metric.name].to_numpy()), (
        f"of {len(mine)} finished runs of {results.baseline}"
    )
