"""The tests and intervals behind a verdict, each on two plain lists of run scores.

Everything here is two-sided. A statistic that the data do not define (fewer than two runs on a
side, no variation between the seeds) is NaN, never a warning or an exception.
"""

import warnings
from collections.abc import Sequence
from itertools import combinations
from math import comb, isfinite, nan, sqrt
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.multitest import multipletests

Scores: TypeAlias = npt.NDArray[np.float64]
Interval = tuple[float, float]

LEVEL = 0.05
EXACT_SPLITS = 20_000
"""Up to so many splits the permutation test enumerates them all; beyond, it samples as many."""
UNDEFINED: Interval = (nan, nan)

# Scores that are equal up to rounding must count as equal, or the t statistic is noise over noise.
_ROUNDING = 1e-12


class Welch(NamedTuple):
    """Welch's comparison of two arms: `first - second`."""

    difference: float
    interval: Interval
    """95% interval of the difference."""
    interval_90: Interval
    """90% interval: inside ±margin it shows equivalence at the 5% level (two one-sided tests)."""
    p: float


def spread(scores: Scores) -> float:
    """Standard deviation (n - 1) of `scores[n]`; exactly 0 for equal scores, NaN below two."""
    if len(scores) < 2:
        return nan
    deviation = float(np.std(scores, ddof=1))
    return deviation if deviation > _ROUNDING * float(np.max(np.abs(scores))) else 0.0


def welch(first: Scores, second: Scores) -> Welch:
    """Welch's t test and intervals of mean(first) - mean(second), in the scores' units.

    Scores that do not vary on either side leave the test undefined: the noise is unmeasured, and
    calling any difference certain would be wrong whenever coarse scores tie by chance.
    """
    if not len(first) or not len(second):
        return Welch(nan, UNDEFINED, UNDEFINED, nan)
    difference = float(np.mean(first) - np.mean(second))
    spreads = spread(first), spread(second)
    if not all(map(isfinite, spreads)) or not any(spreads):
        return Welch(difference, UNDEFINED, UNDEFINED, nan)
    with warnings.catch_warnings():
        # One constant side is legitimate, but scipy warns of precision lost in its variance.
        warnings.simplefilter("ignore")
        result = stats.ttest_ind(first, second, equal_var=False)
        wide, narrow = result.confidence_interval(0.95), result.confidence_interval(0.90)
    return Welch(
        difference,
        (float(wide.low), float(wide.high)),
        (float(narrow.low), float(narrow.high)),
        float(result.pvalue),
    )


class WelchParts(NamedTuple):
    """What Welch's test is made of; NaN where it is undefined."""

    difference: float
    error: float
    """Standard error of the difference."""
    freedom: float
    """Welch's degrees of freedom."""


def welch_parts(first: Scores, second: Scores) -> WelchParts:
    """The parts of `welch(first, second)`, for tests of other hypotheses than "equal"."""
    spreads = spread(first), spread(second)
    if not all(map(isfinite, spreads)) or not any(spreads):
        return WelchParts(nan, nan, nan)
    parts = [spreads[0] ** 2 / len(first), spreads[1] ** 2 / len(second)]
    freedom = satterthwaite(parts, (len(first), len(second)))
    return WelchParts(float(np.mean(first) - np.mean(second)), sqrt(sum(parts)), freedom)


def satterthwaite(variances: Sequence[float], counts: Sequence[int]) -> float:
    """Degrees of freedom of a sum of variances, each estimated from so many scores."""
    return sum(variances) ** 2 / sum(
        variance**2 / (count - 1) for variance, count in zip(variances, counts, strict=True)
    )


def holm(p_values: list[float]) -> list[float]:
    """Holm's adjustment over all comparisons of the design.

    A comparison without a p value stays NaN but keeps its place in the count, so that the
    correction does not get milder because an arm's runs were lost.
    """
    if not p_values:
        return []
    known = np.isfinite(p_values)
    adjusted = multipletests(np.where(known, p_values, 1.0), method="holm")[1]
    return [float(p) if k else nan for p, k in zip(adjusted, known, strict=True)]


def permutation(first: Scores, second: Scores, seed: int = 0) -> float:
    """The studentised permutation test's p: all splits if at most `EXACT_SPLITS`, else sampled.

    The statistic is Welch's |t|, which keeps the test close to its level when the arms' variances
    differ (Janssen 1997). NaN below two runs on a side. The sampled p is (1 + hits) / (1 + draws).
    """
    size, total = len(first), len(first) + len(second)
    if size < 2 or total - size < 2:
        return nan
    # Centred scores keep the sums of squares accurate.
    pooled = np.concatenate([first, second])
    pooled = pooled - pooled.mean()
    observed = _absolute_t(pooled, np.arange(size)[None, :])[0]
    exact = comb(total, size) <= EXACT_SPLITS
    if exact:
        chosen = np.array(list(combinations(range(total), size)))
    else:
        draws = np.random.default_rng(seed).random((EXACT_SPLITS, total))
        chosen = np.argpartition(draws, size, axis=1)[:, :size]
    hits = int(np.sum(_absolute_t(pooled, chosen) >= observed * (1 - 1e-9)))
    return hits / len(chosen) if exact else (1 + hits) / (1 + len(chosen))


def permutation_floor(first: int, second: int) -> float:
    """Smallest two-sided p a permutation test of `first` against `second` runs can reach.

    With equal sizes a split and its mirror image have the same |t|, which doubles the floor:
    2/20 = 0.10 for three against three.
    """
    if first < 2 or second < 2:
        return nan
    return (2 if first == second else 1) / comb(first + second, first)


def _absolute_t(pooled: Scores, chosen: npt.NDArray[np.intp]) -> Scores:
    """Welch's |t| of every split: `pooled[N]`, `chosen[splits, n]` -> `[splits]`."""
    n, m = chosen.shape[1], len(pooled) - chosen.shape[1]
    sums, squares = pooled[chosen].sum(axis=1), (pooled**2)[chosen].sum(axis=1)
    rest, rest_squares = pooled.sum() - sums, (pooled**2).sum() - squares
    gap = np.abs(sums / n - rest / m)
    variance = (squares - sums**2 / n) / (n - 1) / n + (rest_squares - rest**2 / m) / (m - 1) / m
    scale = float(np.max(np.abs(pooled)))
    gap = np.where(gap > _ROUNDING * scale, gap, 0.0)
    flat = variance <= _ROUNDING * scale**2
    # Two constant groups: infinitely apart, or the same.
    return np.where(
        flat, np.where(gap > 0, np.inf, 0.0), gap / np.sqrt(np.where(flat, 1.0, variance))
    )


def variance_ratio(first: Scores, second: Scores) -> tuple[float, Interval]:
    """var(first) / var(second) and its 95% interval from the F distribution (normal scores)."""
    if len(first) < 2 or len(second) < 2 or not spread(second):
        return nan, UNDEFINED
    ratio = (spread(first) / spread(second)) ** 2
    law = stats.f(len(first) - 1, len(second) - 1)
    return ratio, (ratio / float(law.ppf(0.975)), ratio / float(law.ppf(0.025)))


def mean_interval(scores: Scores) -> Interval:
    """Student's 95% interval of the mean of `scores[n]`; NaN below two scores."""
    if len(scores) < 2:
        return UNDEFINED
    half = float(stats.t.ppf(0.975, len(scores) - 1)) * spread(scores) / sqrt(len(scores))
    return float(np.mean(scores)) - half, float(np.mean(scores)) + half
