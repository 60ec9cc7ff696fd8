"""Other looks at the same two lists of scores: described beside a verdict, never deciding it.

As in `statistics`, everything is two-sided, and what the data do not define is NaN.
"""

import warnings
from math import exp, isfinite, lgamma, log, nan, sqrt
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from raymdm.verdict.statistics import (
    UNDEFINED,
    Interval,
    Scores,
    satterthwaite,
    spread,
    welch_parts,
)

LEAST_FOR_BCA = 8
"""Below so many seeds the bootstrap has too few different samples to say anything about tails."""
BCA_DRAWS = 9999
EXACT_FLIPS = 2**16
"""Up to so many patterns of signs (16 pairs) are enumerated; beyond, as many are sampled."""

# The standard normal law as points and weights.
_NODES, _WEIGHTS = (8.5 * each for each in np.polynomial.legendre.leggauss(200))
_WEIGHTS = _WEIGHTS * stats.norm.pdf(_NODES)


class Paired(NamedTuple):
    """Two arms on the same seeds, `first - second`."""

    pairs: int
    correlation: float
    """Pearson's, between the arms over the seeds: how much pairing could gain."""
    p: float
    """Paired t test."""
    interval: Interval
    """95% interval of the mean difference, from the pairs."""
    p_sign_flip: float
    """Permutation of the signs: exact up to 16 pairs, then sampled."""


def paired(first: Scores, second: Scores) -> Paired:
    """Paired t test and sign-flip test of `first[n]` and `second[n]`, run by run on one seed."""
    differences = first - second
    if len(differences) < 2:
        return Paired(len(differences), nan, nan, UNDEFINED, nan)
    vary = spread(first) > 0 and spread(second) > 0
    # Two pairs always lie on a line.
    correlation = np.corrcoef(first, second)[0, 1] if vary and len(first) > 2 else nan
    if not spread(differences):
        return Paired(len(differences), float(correlation), nan, UNDEFINED, nan)
    test = stats.ttest_rel(first, second)
    bounds = test.confidence_interval(0.95)
    flipped = stats.permutation_test(
        (first, second),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=EXACT_FLIPS,
        rng=np.random.default_rng(0),
    )
    return Paired(
        len(differences),
        float(correlation),
        float(test.pvalue),
        (float(bounds.low), float(bounds.high)),
        float(flipped.pvalue),
    )


def bca(first: Scores, second: Scores) -> Interval:
    """BCa bootstrap 95% interval of mean(first) - mean(second) (Efron 1987).

    Takes stacks of experiments too: `first[..., n]`, `second[..., m]`. NaN below 8 scores a side.
    """
    low, high = bca_stack(first, second, BCA_DRAWS)
    return float(low), float(high)


def bca_stack(first: Scores, second: Scores, draws: int) -> tuple[Scores, Scores]:
    """`bca` of a stack of experiments, `first[..., n]` and `second[..., m]`, in one call."""
    unknown = np.full(first.shape[:-1], nan)
    if min(first.shape[-1], second.shape[-1]) < LEAST_FOR_BCA:
        return unknown, unknown
    with warnings.catch_warnings():
        # Scores that do not vary have no such interval: NaN says it.
        warnings.simplefilter("ignore")
        interval = stats.bootstrap(
            (first, second),
            lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis),
            axis=-1,
            n_resamples=draws,
            vectorized=True,
            method="BCa",
            rng=np.random.default_rng(0),
        ).confidence_interval
    return np.asarray(interval.low), np.asarray(interval.high)


def brown_forsythe(first: Scores, second: Scores) -> float:
    """The p of Brown and Forsythe's test of equal variances: Levene's, around the medians.

    Holds for skewed scores as well, unlike the F interval. NaN below three scores a side (two lie
    equally far from their median, always: p would be 0), or where the distances do not vary.
    """
    if min(len(first), len(second)) < 3:
        return nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(stats.levene(first, second, center="median").pvalue)


def hedges_g(first: Scores, second: Scores) -> tuple[float, Interval]:
    """Hedges' g (difference over the pooled sd, without small-sample bias) and a 95% interval.

    The interval is that of the true difference in sds, by inverting the noncentral t distribution
    (normal scores of equal variance).
    """
    n, m = len(first), len(second)
    if n < 2 or m < 2:
        return nan, UNDEFINED
    freedom = n + m - 2
    pooled = sqrt(((n - 1) * spread(first) ** 2 + (m - 1) * spread(second) ** 2) / freedom)
    if not pooled:
        return nan, UNDEFINED
    effect = float(np.mean(first) - np.mean(second)) / pooled
    scale = sqrt(1 / n + 1 / m)
    low, high = (scale * _noncentrality(effect / scale, freedom, s) for s in (0.975, 0.025))
    return hedges_factor(freedom) * effect, (low, high)


def hedges_factor(freedom: int) -> float:
    """Hedges' (1981) correction of the bias of d: Γ(ν/2) / (√(ν/2) Γ((ν-1)/2))."""
    return exp(lgamma(freedom / 2) - log(freedom / 2) / 2 - lgamma((freedom - 1) / 2))


def _noncentrality(t: float, freedom: int, share: float) -> float:
    """The noncentrality under which `share` of the t values lie below this one."""
    # T is normal given its scale: integrated over that. scipy's own nct gives NaN in the far tails.
    below = stats.chi2.ppf(stats.norm.cdf(_NODES), freedom)
    beyond = stats.chi2.isf(stats.norm.sf(_NODES), freedom)
    scales = np.sqrt(np.where(_NODES < 0, below, beyond) / freedom)

    def above(distance: float) -> float:
        return float(_WEIGHTS @ stats.norm.cdf(t * scales - distance)) - share

    reach = 10.0
    while not (above(t - reach) > 0 > above(t + reach)):
        reach *= 2
        if reach > 1e4:
            return nan
    return float(optimize.brentq(above, t - reach, t + reach))


def wins(first: Scores, second: Scores) -> float:
    """Share of the pairs of one run of each in which `first` is higher; a tie is half a win."""
    if not len(first) or not len(second):
        return nan
    gaps = np.sign(first[:, None] - second[None, :])
    return float(np.mean((gaps + 1) / 2))


def next_run_wins(first: Scores, second: Scores) -> float:
    """Probability that a new run of `first` is higher than a new run of `second`.

    Predictive, of normal scores: it knows that means and spreads are themselves measured on a few
    runs, and so stays away from 0 and 1. The difference of two new runs around the difference of
    the means has the variance s₁²(1 + 1/n) + s₂²(1 + 1/m), with Satterthwaite's freedom; where it
    says 90%, the bound below which 10% of new differences fall is 0.
    """
    difference, error, _ = welch_parts(first, second)
    if not error > 0:
        return nan
    parts = [spread(scores) ** 2 * (1 + 1 / len(scores)) for scores in (first, second)]
    freedom = satterthwaite(parts, (len(first), len(second)))
    probability = float(stats.t.cdf(difference / sqrt(sum(parts)), freedom))
    return probability if isfinite(probability) else nan
