"""What stands beside one arm's verdict: other looks at the same runs, none of which decides."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any

import numpy as np

from raymdm.verdict import power, sensitivity
from raymdm.verdict.coverage import Coverage, coverage
from raymdm.verdict.item_noise import ItemScores, crossed
from raymdm.verdict.statistics import UNDEFINED, Interval, Scores

INTERVALS = (
    "welch",
    "student",
    "paired",
    "bca",
    "crossed",
    "variance_ratio",
    "effect_size",
    "seeds_needed",
)
"""Every interval that is shown, by the name its simulated coverage has."""


@dataclass(frozen=True)
class Beside:
    """Sensitivity of an arm's comparison with the baseline; NaN where the runs do not define it.

    Differences are arm minus baseline. p values are two-sided and not adjusted.
    """

    pairs: int = 0
    """Seeds that finished in both arms."""
    correlation: float = nan
    """Between the arms over these seeds."""
    p_paired: float = nan
    """Paired t test."""
    paired_interval: Interval = UNDEFINED
    """95% interval of the difference, from the pairs."""
    p_sign_flip: float = nan
    """Sign-flip permutation of the pairs, exact up to 16."""
    bca_interval: Interval = UNDEFINED
    """BCa bootstrap 95% interval of the difference, from 8 seeds on."""
    crossed_interval: Interval = UNDEFINED
    """95% bootstrap interval over seeds × items: what other test items would say as well."""
    effect_size: float = nan
    """Hedges' g, in pooled standard deviations."""
    effect_size_interval: Interval = UNDEFINED
    """95% interval of g, from the noncentral t distribution."""
    wins: float = nan
    """Share of the pairs of one run of each arm in which this arm's is the better; diverged runs
    are the worst."""
    next_run_better: float = nan
    """Probability that a new run of this arm is better than a new run of the baseline."""
    p_brown_forsythe: float = nan
    """Brown and Forsythe's test of equal variances."""
    variance_ratio_bounds: Interval = UNDEFINED
    """Observed variance ratios inside of these differ from 1 by no more than chance would."""
    sd_ratio_detectable: float = nan
    """Smallest true ratio of standard deviations, or its inverse, that so many seeds see with 80%
    power."""
    coverage: dict[str, Coverage | None] = field(default_factory=dict)
    """Simulated coverage of every interval, by name, with so many seeds."""


def beside(
    names: tuple[str, str],
    scores: tuple[Scores, Scores],
    seeds: tuple[Sequence[Any], Sequence[Any]],
    n_diverged: tuple[int, int],
    higher_is_better: bool,
    items: ItemScores | None,
) -> Beside:
    """Everything of an arm (first of every pair) against the baseline (second)."""
    first, second = scores
    sign = 1.0 if higher_is_better else -1.0
    common = [seed for seed in seeds[0] if seed in set(seeds[1])]
    places = [[list(side).index(seed) for seed in common] for side in seeds]
    pairs = sensitivity.paired(first[places[0]], second[places[1]])
    effect, effect_interval = sensitivity.hedges_g(first, second)
    outcomes = [
        np.concatenate([sign * side, np.full(lost, -np.inf)])
        for side, lost in zip(scores, n_diverged, strict=True)
    ]
    least = min(len(first), len(second))
    seen = power.detectable_variance_ratio(len(first), len(second))
    return Beside(
        pairs=pairs.pairs,
        correlation=pairs.correlation,
        p_paired=pairs.p,
        paired_interval=pairs.interval,
        p_sign_flip=pairs.p_sign_flip,
        bca_interval=sensitivity.bca(first, second),
        crossed_interval=(
            crossed(items.of(names[0]), items.of(names[1]), items.weights) if items else UNDEFINED
        ),
        effect_size=effect,
        effect_size_interval=effect_interval,
        wins=sensitivity.wins(*outcomes),
        # How likely a run diverges is not known well enough to be part of a probability.
        next_run_better=(
            nan if any(n_diverged) else sensitivity.next_run_wins(sign * first, sign * second)
        ),
        p_brown_forsythe=sensitivity.brown_forsythe(first, second),
        variance_ratio_bounds=power.variance_bounds(len(first), len(second)),
        sd_ratio_detectable=seen**0.5,
        coverage={
            name: coverage(name, pairs.pairs if name == "paired" else least) for name in INTERVALS
        },
    )
