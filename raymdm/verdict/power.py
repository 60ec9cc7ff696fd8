"""What a number of seeds can see: for the plan before the runs, and beside the verdict after them.

Nothing here looks at an observed difference: power at the observed effect is the p value again, in
other clothes (Hoenig and Heisey 2001). Effects are in units of the standard deviation between
seeds; tests are two-sided at 0.05, over the comparisons for the hardest step of Holm's procedure;
seen means with a probability of 80%. All of it assumes normal scores.
"""

from dataclasses import dataclass
from math import isfinite, nan, sqrt
from typing import Literal

from scipy import optimize, stats

from raymdm.errors import ConfigurationError
from raymdm.verdict.statistics import LEVEL, Scores, permutation_floor, spread

POWER = 0.8
MOST_SEEDS = 1_000_000
"""Upper end of the search for the number of seeds."""

Test = Literal["welch", "permutation", "sign_flip"]


@dataclass(frozen=True)
class Reach:
    """What a design of `seeds` seeds per arm and `comparisons` arms beside the baseline can see."""

    seeds: int
    comparisons: int
    difference: float
    """Smallest true difference of means that is seen, in standard deviations between seeds."""
    sd_ratio: float
    """Smallest true ratio of standard deviations (above 1; below 1 its inverse) that is seen."""
    p_floor_permutation: float
    """Smallest p of the unpaired permutation test, not adjusted."""
    p_floor_sign_flip: float
    """Smallest p of the paired sign-flip test, not adjusted."""
    rests_on_normality: bool
    """Whether a verdict of this design must: no permutation test passes Holm."""


def reach(seeds: int, comparisons: int = 1) -> Reach:
    """What `raymdm sweep --plan` prints of the design."""
    floor = permutation_floor(seeds, seeds)
    return Reach(
        seeds,
        comparisons,
        detectable_difference(seeds, comparisons),
        sqrt(detectable_variance_ratio(seeds, seeds, comparisons)),
        floor,
        sign_flip_floor(seeds),
        not floor * comparisons <= LEVEL,
    )


def can_reach(seeds: int, comparisons: int, test: Test = "welch") -> None:
    """Refuse a primary test that cannot become significant, whatever the runs will show.

    Args:
        seeds: per arm.
        comparisons: arms beside the baseline, over which Holm corrects.
        test: the primary one. Welch's p has no floor from two seeds on; those that count splits or
            signs have one.

    Raises:
        ConfigurationError: no arm to compare, a single seed, or a smallest p above the level.
    """
    if comparisons < 1:
        raise ConfigurationError("a comparison needs a baseline and at least one other arm")
    if seeds < 2:
        raise ConfigurationError(
            f"{seeds} seed per arm: no test can reach p < {LEVEL}, the spread between seeds stays "
            "unknown; use at least 2, better 5 or more"
        )
    floors = {"welch": 0.0, "permutation": permutation_floor(seeds, seeds)}
    floor = {**floors, "sign_flip": sign_flip_floor(seeds)}[test]
    if floor * comparisons >= LEVEL:
        raise ConfigurationError(
            f"{seeds} seeds per arm: the {test} test cannot go below p = {floor:.2g}, which is "
            f"{floor * comparisons:.2g} after Holm over {comparisons} comparisons; use more seeds, "
            "fewer arms, or Welch's test"
        )


def sign_flip_floor(pairs: int) -> float:
    """Smallest two-sided p of a sign-flip test of so many pairs: 2 / 2^n; NaN below two pairs."""
    return nan if pairs < 2 else 2.0 ** (1 - pairs)


def detectable_difference(seeds: int, comparisons: int = 1) -> float:
    """Smallest difference of means, in sds, that `seeds` per arm see; NaN below two seeds."""
    if seeds < 2:
        return nan
    level, high = LEVEL / max(comparisons, 1), 1.0

    def missing(effect: float) -> float:
        return _t_power(effect, seeds, level) - POWER

    while missing(high) < 0:
        high *= 2
    return float(optimize.brentq(missing, 1e-9, high))


def variance_bounds(first: int, second: int, comparisons: int = 1) -> tuple[float, float]:
    """Observed variance ratios (first over second) outside of which the F test is significant."""
    if first < 2 or second < 2:
        return nan, nan
    law, tail = stats.f(first - 1, second - 1), LEVEL / max(comparisons, 1) / 2
    return float(law.ppf(tail)), float(law.isf(tail))


def detectable_variance_ratio(first: int, second: int, comparisons: int = 1) -> float:
    """Smallest true variance ratio, or its inverse, that so many seeds see; NaN below two.

    The observed ratio is the true one times F: power is P(ρF < low) + P(ρF > high), exactly. With
    unequal numbers of seeds the worse direction counts.
    """
    low, high = variance_bounds(first, second, comparisons)
    if not isfinite(high):
        return nan
    law = stats.f(first - 1, second - 1)

    def missing(ratio: float) -> float:
        return float(law.cdf(low / ratio) + law.sf(high / ratio)) - POWER

    most = 1e12
    above = optimize.brentq(missing, 1.0, most, rtol=1e-10)
    below = optimize.brentq(missing, 1 / most, 1.0, xtol=1e-18, rtol=1e-10)
    return float(max(above, 1 / below))


def seeds_needed(
    first: Scores, second: Scores, difference: float, comparisons: int = 1
) -> tuple[int, int] | None:
    """Seeds per arm that show a true `difference` with 80% power, as a (low, high) range.

    The range is that of the 95% interval of the pooled standard deviation; the observed effect
    plays no part (it would make the answer as noisy as the p value). The level is 0.05 over
    `comparisons`, the hardest step of Holm's procedure. None where the noise is unmeasured.
    """
    low, high = pooled_sd_interval(first, second)
    if not high > 0 or not isfinite(difference) or difference <= 0:
        return None
    level = LEVEL / max(comparisons, 1)
    return _seeds_for(difference / low, level), _seeds_for(difference / high, level)


def pooled_sd_interval(first: Scores, second: Scores) -> tuple[float, float]:
    """95% interval of the standard deviation that both groups share (normal scores)."""
    groups = [scores for scores in (first, second) if len(scores) >= 2]
    freedom = sum(len(scores) - 1 for scores in groups)
    if not freedom:
        return nan, nan
    squares = sum((len(scores) - 1) * spread(scores) ** 2 for scores in groups)
    low, high = (sqrt(squares / float(q)) for q in stats.chi2.ppf([0.975, 0.025], freedom))
    return low, high


def _seeds_for(effect: float, level: float) -> int:
    """Smallest n per arm (at least 2) whose t test sees `effect` (in sds)."""

    def enough(n: int) -> bool:
        return _t_power(effect, n, level) >= POWER

    low, high = 1, 2
    while not enough(high) and high < MOST_SEEDS:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return min(high, MOST_SEEDS)


def _t_power(effect: float, seeds: int, level: float) -> float:
    """Power of the two-sided t test with so many seeds per arm: t² is noncentral F."""
    freedom, distance = 2 * (seeds - 1), effect * sqrt(seeds / 2)
    if distance > 1e3:
        return 1.0
    critical = float(stats.t.isf(level / 2, freedom)) ** 2
    return float(stats.ncf.sf(critical, 1, freedom, distance**2))
