"""How a test that is looked at several times spends its error: boundaries for each look.

Lan and DeMets (1983): the share of the error that may be spent up to a look is a function of how
much of the data is there, fixed beforehand; the boundary of a look is what spends exactly the
difference. Boundaries are those of a two-sided test of a normal mean, given as the nominal p that a
look has to stay below, which carries them over to Welch's p (Jennison and Turnbull 2000, sections
3.3 and 19.2).
"""

from collections.abc import Callable
from functools import lru_cache
from math import e, log, sqrt
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

Spending = Literal["obrien_fleming", "pocock"]

_FARTHEST = 12.0
"""Standard errors beyond which a boundary is never crossed (p = 4e-33)."""
_POINTS = 256
"""Nodes of the Gauss-Legendre rule between the boundaries of a look."""


def spent(fraction: float, level: float, spending: Spending) -> float:
    """Two-sided error that may be spent when this fraction (0 to 1] of the seeds is there.

    `obrien_fleming` spends next to nothing early and keeps the last look near the whole level;
    `pocock` spends early, for those who hope to stop early.
    """
    if spending == "pocock":
        return level * log(1 + (e - 1) * fraction)
    # The function of either tail, which has half of the level.
    return float(4 * stats.norm.sf(stats.norm.isf(level / 4) / sqrt(fraction)))


@lru_cache(maxsize=256)
def nominal_levels(
    fractions: tuple[float, ...], level: float, spending: Spending
) -> tuple[float, ...]:
    """The p that each look has to stay below, two-sided, so that all together err at `level`.

    Args:
        fractions: of the seeds that are there at each look, rising; the last is 1 where the looks
            go on to the end.
        level: of the whole, two-sided.
        spending: how it is spent.

    Returns:
        One level per look.
    """
    nodes, weights = np.polynomial.legendre.leggauss(_POINTS)
    found = []
    # The law of the score process (variance = fraction) on paths that crossed nothing yet.
    places, density, before, used = np.zeros(1), np.ones(1), 0.0, 0.0
    for fraction in fractions:
        step = sqrt(fraction - before)
        allowed = spent(fraction, level, spending)
        crosses = _crossing(places, density, step)
        farthest = _FARTHEST * sqrt(fraction)
        bound = farthest
        if allowed - used > crosses(farthest):
            bound = optimize.brentq(
                lambda x, f=crosses, gap=allowed - used: f(x) - gap, 0.0, farthest, xtol=1e-12
            )
        found.append(float(2 * stats.norm.sf(bound / sqrt(fraction))))
        half = min(bound, 9 * sqrt(fraction))
        arrived = half * nodes
        move = (arrived[:, None] - places[None, :]) / step
        # Weighted by the rule's own weights, so that a sum over the density is its integral.
        density = (stats.norm.pdf(move) / step) @ density * weights * half
        places, before, used = arrived, fraction, allowed
    return tuple(found)


def _crossing(
    places: npt.NDArray[np.float64], density: npt.NDArray[np.float64], step: float
) -> Callable[[float], float]:
    """Probability that the next step ends beyond ±x, as a function of x."""

    def beyond(x: float) -> float:
        tails = stats.norm.sf((x - places) / step) + stats.norm.cdf((-x - places) / step)
        return float(tails @ density)

    return beyond
