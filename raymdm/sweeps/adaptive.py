"""Seeds that are added until the question is decided: the design of `sweep.until: decided`."""

from pathlib import Path

from raymdm.config import Config
from raymdm.sweeps.design import Trial
from raymdm.verdict import SequentialDesign, look, read_sweep
from raymdm.verdict.results import ACCURACY, NELBO
from raymdm.verdict.sequential import Decision

_METRICS = {metric.name: metric for metric in (ACCURACY, NELBO)}


def sequential_design(config: Config) -> SequentialDesign | None:
    """The looks that the configuration asks for; None under `sweep.until: all`.

    Raises:
        ConfigurationError: fewer than two arms or three seeds.
    """
    sweep, margin = config.sweep, config.compare.margin
    if sweep.until == "all" or margin is None:
        return None
    baseline = sweep.baseline or next(iter(sweep.arms))
    metric = _METRICS[config.compare.metric]
    return SequentialDesign(
        arms=(baseline, *(arm for arm in sweep.arms if arm != baseline)),
        seeds=tuple(sweep.seeds),
        batch=sweep.looks.every,
        margin=margin,
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        spending=sweep.looks.spending,
        futility=sweep.looks.futility,
    )


def first_seeds(trials: list[Trial], seeds: tuple[int, ...]) -> list[Trial]:
    """The trials of these seeds."""
    return [trial for trial in trials if trial.seed in seeds]


def decide(design: SequentialDesign, sweep_dir: Path) -> Decision:
    """What the looks say of the runs that are there; the first one's seeds where none are."""
    results = read_sweep(sweep_dir)
    return look(design, results.table(_METRICS[design.metric], results.settings[0]))
