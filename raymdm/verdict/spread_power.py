"""What Brown and Forsythe's test of spreads can see with so many seeds, by simulation."""

from functools import lru_cache
from math import inf, nan

import numpy as np
from scipy import optimize, stats

from raymdm.verdict.power import POWER
from raymdm.verdict.statistics import LEVEL, Scores

_DRAWS = 20_000
_MOST = 1e6


@lru_cache(maxsize=256)
def detectable_sd_ratio(first: int, second: int, comparisons: int = 1) -> float:
    """Smallest true ratio of sds, or its inverse, that the test sees with 80% power.

    Normal scores, level 0.05 over the comparisons (the hardest step of Holm's procedure). Simulated
    on fixed draws, good to about two percent. With unequal numbers of seeds the worse direction
    counts. Infinite where no ratio is seen so often; NaN below three seeds.
    """
    if min(first, second) < 3:
        return nan
    random = np.random.default_rng(0)
    sides = [_deviations(random.standard_normal((_DRAWS, seeds))) for seeds in (first, second)]
    counts = first, second
    critical = float(stats.f.isf(LEVEL / max(comparisons, 1), 1, first + second - 2))

    def missing(log_ratio: float, wide: int) -> float:
        scale = [1.0, 1.0]
        scale[wide] = float(np.exp(log_ratio))
        means = [scale[side] * sides[side][0] for side in (0, 1)]
        squares = sum(scale[side] ** 2 * sides[side][1] for side in (0, 1))
        error = squares / (first + second - 2) * sum(1 / count for count in counts)
        return float(((means[0] - means[1]) ** 2 > critical * error).mean()) - POWER

    worst = 1.0
    for wide in (0, 1):
        if missing(np.log(_MOST), wide) < 0:
            return inf
        root = optimize.bisect(missing, 0.0, np.log(_MOST), args=(wide,), xtol=1e-4)
        worst = max(worst, float(np.exp(root)))
    return worst


def _deviations(scores: Scores) -> tuple[Scores, Scores]:
    """Means of the absolute deviations from the median, and their sums of squares around them."""
    distances = np.abs(scores - np.median(scores, axis=1, keepdims=True))
    means = distances.mean(1)
    return means, ((distances - means[:, None]) ** 2).sum(1)
