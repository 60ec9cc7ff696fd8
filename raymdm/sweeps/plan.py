"""What a sweep will cost and what it can show, before it runs: `raymdm sweep --plan`."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from math import nan
from pathlib import Path

import torch

from raymdm.config import Config
from raymdm.data.manifest import read_manifest
from raymdm.diffusion.passes import Passes, count_passes, step_passes
from raymdm.sweeps.calibration import seconds_per_step
from raymdm.sweeps.design import Trial
from raymdm.sweeps.disk import bytes_kept, bytes_while_running
from raymdm.sweeps.driver import choose_path, trial_cpus
from raymdm.sweeps.trial import has_ended
from raymdm.training import RunDirectory
from raymdm.training.job import Job, make_job
from raymdm.verdict.power import Reach, can_reach, reach
from raymdm.verdict.results import read_sweep
from raymdm.verdict.statistics import spread

FORWARD_SHARE = 1 / 3
"""Of the time of a forward and a backward pass, what the forward takes: a backward is two of it."""


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
class Plan:
    """A sweep before it runs.

    Attributes:
        arms: in the order of the design.
        seeds: per arm.
        settings: drawn from the axes; 1 without.
        at_once: trials at the same time.
        longest: seconds of the longest trial to run.
        while_running: most bytes that the trials at the same time need besides what stays.
        reach: what the design can show.
        metric: the primary one.
        sd: the standard deviation between seeds, NaN where it is not known.
        sd_source: where it comes from.
        vary: the streams that the seeds vary; None means all.
        measured: steps per arm that the times come from; None where a rate was given.
    """

    arms: tuple[ArmPlan, ...]
    seeds: int
    settings: int
    at_once: int
    longest: float
    while_running: float
    reach: Reach
    metric: str
    sd: float
    sd_source: str
    vary: tuple[str, ...] | None
    measured: int | None

    @property
    def seconds(self) -> float:
        """Wall time of training and probing, with `at_once` trials at the same time."""
        return max(sum(arm.seconds for arm in self.arms) / self.at_once, self.longest)


def check_primary_test(config: Config) -> None:
    """Refuse a design whose primary test, Welch's, cannot reach significance.

    Raises:
        ConfigurationError: a single arm, or a single seed.
    """
    can_reach(len(config.sweep.seeds), len(config.sweep.arms) - 1)


def make_plan(
    config: Config,
    trials: list[Trial],
    *,
    steps: int = 20,
    rate: float | None = None,
    sd: float | None = None,
    watch: Callable[[str], None] = lambda arm: None,
) -> Plan:
    """The plan of a design; nothing is written and nothing is started.

    Args:
        config: the sweep's.
        trials: the design.
        steps: training steps per arm from which the time of a step is measured.
        rate: tokens per second through the model of one trial, every view counted, in place of
            the measurement.
        sd: standard deviation between seeds, in units of the primary metric, where it is known;
            else that of the baseline's finished runs, if there are two.
        watch: told the arm before it is measured.

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
        first = own[0].config
        if rate is None:
            watch(arm)
            of_a_step = step_passes(first.estimator, first.training.batch_size)
            per_pass = seconds_per_step(first, steps) / of_a_step
        else:
            per_pass = _row_tokens(config) / rate
        planned, longest_own = _arm(arm, own, jobs, per_pass)
        arms.append(planned)
        longest = max(longest, longest_own)
    known, source = (sd, "as given") if sd is not None else _sd_so_far(config)
    at_once = trials_at_once(config)
    running = max(bytes_while_running(t.config, jobs[_kind(t)]) for t in trials)
    seeds, sweep = len(config.sweep.seeds), config.sweep
    return Plan(
        tuple(arms),
        seeds,
        len({str(trial.settings) for trial in trials}),
        at_once,
        longest,
        running * at_once,
        reach(seeds, len(sweep.arms) - 1),
        config.compare.metric,
        known,
        source,
        None if sweep.vary is None else tuple(sweep.vary),
        steps if rate is None else None,
    )


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
        training = trial.config.training
        counted = count_passes(
            trial.config.estimator, training.batch_size, job.steps, len(job.train)
        )
        passes.append(counted)
        steps.append(job.steps)
        disk += bytes_kept(trial.config, job)
        if not has_ended(RunDirectory(trial.config.run_dir)):
            seconds.append(per_pass * _training_passes(counted))
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
        _row_tokens(first) / per_pass,
        sum(seconds),
        disk,
    )
    return plan, max(seconds, default=0.0)


def _training_passes(passes: Passes) -> float:
    """Passes in units of a forward with its backward."""
    only_forward = passes.forwards - passes.backwards
    return passes.backwards + FORWARD_SHARE * only_forward


def _row_tokens(config: Config) -> float:
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
