"""What a count probe predicts of an estimator, without running it: variances and their optimum.

With z(u) the weighted value of a row whose uniform is u, and zbar(u) its mean over rows and masks,
a batch of N independent rows has

    N Var(mean) = ∫ E|z(u)|² du - ∫∫ K(u, u') zbar(u) · zbar(u') du du'

where the kernel K says how u is spread: 1 for independent u, 1/J on the diagonal of J cells for the
lattice (the limit of large N), K on each of K strata, 2 - antidiagonal for antithetic pairs. Means
are multiplied across the probe's two independent halves and across different rows only, so nothing
is biased by noise. Source: the design note "estimators", sections 3 to 5.
"""

from dataclasses import dataclass
from math import isqrt

import numpy as np
from scipy.stats import binom

from raymdm.diffusion import Estimator
from raymdm.diffusion.count_probe import CountMoments
from raymdm.diffusion.law import CountLaw, Law, RateLaw
from raymdm.diffusion.masking import IndependentMasker, MirrorMasker, RotationMasker
from raymdm.diffusion.stratify import (
    AntitheticUniforms,
    IndependentUniforms,
    LatticeUniforms,
    StratifiedUniforms,
    Stratify,
)
from raymdm.diffusion.time import ImportanceTime, TimeSampler, UniformTime

GRID = 512
_COARSE = 32
"""Cells over which second moments are averaged before roots are taken of them."""


@dataclass(frozen=True)
class Correlation:
    """rho(t) of MIRROR's two views, at increasing rates."""

    t: np.ndarray
    rho: np.ndarray

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """Rho at any rates, by interpolation."""
        return np.interp(t, self.t, self.rho)


class Prediction:
    """Predictions from one probe, for the loss or for the gradient."""

    def __init__(self, moments: CountMoments, which: str, scale: np.ndarray) -> None:
        """From draws, and what the loss of each draw's row is multiplied with[D] in a batch (1, or
        n over its mean where tokens are normalised together).
        """
        self.moments, self.scale = moments, scale
        if which == "loss":
            self.products = np.outer(moments.losses, moments.losses)
            self.squares: np.ndarray = moments.losses**2
        else:
            assert moments.sketches is not None
            assert moments.squared_norms is not None
            self.products = moments.sketches @ moments.sketches.T
            self.squares = moments.squared_norms
        across = moments.lattices[:, None] != moments.lattices[None]
        same = moments.rows[:, None] == moments.rows[None]
        self.different = self.products * (across & ~same) / (across & ~same).sum()
        self.same = self.products * (across & same) / (across & same).sum()

    def variance(
        self, estimator: Estimator, batch_size: int, correlation: Correlation
    ) -> float | None:
        """N Var(batch mean), rows redrawn; None where there is no formula for the composition."""
        share = _view_share(estimator)
        kernel = _kernel(estimator.stratify, batch_size)
        if share is None or kernel is None or estimator.with_syntax:
            return None
        if not isinstance(estimator.time, UniformTime | ImportanceTime):
            return None
        coefficients, squares = self._coefficients(estimator.law, estimator.time)
        second = self._second(estimator, coefficients, squares, correlation)
        mean = (self.different * (coefficients @ kernel @ coefficients.T)).sum()
        return float(second.mean() - mean)

    def optimum(
        self, estimator: Estimator, batch_size: int, correlation: Correlation
    ) -> float | None:
        """The least `variance` over all densities, with this law, these views and this limit."""
        if _view_share(estimator) is None or estimator.with_syntax:
            return None
        coefficients, squares = self._coefficients(estimator.law, UniformTime())
        second = _coarse(self._second(estimator, coefficients, squares, correlation))
        means = (coefficients * (self.different @ coefficients)).sum(0)
        if limit(estimator.stratify) == "stratified":
            rest = np.maximum(second - _coarse(means), 0.01 * second)
            return float(np.sqrt(rest).mean() ** 2)
        whole = coefficients.mean(1)
        return float(np.sqrt(second).mean() ** 2 - whole @ self.different @ whole)

    def _coefficients(self, law: Law, time: TimeSampler) -> tuple[np.ndarray, np.ndarray]:
        """c[D, GRID] with zbar(u) = mean c y, and what multiplies |y|² in E|z(u)|²."""
        moments = self.moments
        t = time((np.arange(GRID) + 0.5) / GRID)
        n, k = moments.lengths[:, None], moments.counts[:, None]
        proposal = moments.proposals[:, None]
        if isinstance(law, CountLaw):
            drawn = np.stack([law.counts(t, np.full(GRID, row)) for row in moments.lengths])
            hit = (drawn == k).astype(np.float64)
            value = law.weight(time, (k - 0.5) / n, n) / k * self.scale[:, None]
            return hit * value / proposal, hit * value**2 / proposal
        assert isinstance(law, RateLaw)
        alpha = law.mask_probability(t)[None]
        value = time.weight(t)[None] / (n * alpha) * self.scale[:, None]
        share = binom.pmf(k, n, alpha) / proposal
        return share * value, share * value**2

    def _second(
        self,
        estimator: Estimator,
        coefficients: np.ndarray,
        squares: np.ndarray,
        correlation: Correlation,
    ) -> np.ndarray:
        """E|z(u)|²[GRID] of the mean over the views."""
        second = (squares * self.squares[:, None]).mean(0)
        share = _view_share(estimator)
        assert share is not None
        views, correlated = share
        if views == 1:
            return second
        rows = (coefficients * (self.same @ coefficients)).sum(0)
        uniforms = (np.arange(GRID) + 0.5) / GRID
        rho = correlation(estimator.time(uniforms)) if correlated else np.zeros(GRID)
        return rows + (second - rows) * (1 + (views - 1) * rho) / views


def limit(stratify: Stratify) -> str:
    """Which optimum an estimator can be held to: `iid` or `stratified`."""
    spread = isinstance(stratify, LatticeUniforms | StratifiedUniforms)
    return "stratified" if spread else "iid"


def _view_share(estimator: Estimator) -> tuple[int, bool] | None:
    """Views of a row, and whether they are correlated as MIRROR's; None without a formula."""
    law = estimator.law
    if isinstance(law, CountLaw):
        return law.views, False
    if not isinstance(law, RateLaw) or law.delimiter_rates != "same":
        return None
    if isinstance(law.masker, IndependentMasker):
        return law.views, False
    two = isinstance(law.masker, MirrorMasker | RotationMasker) and law.views == 2
    return (2, True) if two else None


def _kernel(stratify: Stratify, batch_size: int) -> np.ndarray | None:
    """K[GRID, GRID] with the weight of the grid, so that sums stand for integrals."""
    if isinstance(stratify, IndependentUniforms):
        return np.full((GRID, GRID), 1 / GRID**2)
    if isinstance(stratify, LatticeUniforms):
        return np.eye(GRID) / GRID
    if isinstance(stratify, StratifiedUniforms):
        strata = stratify.strata or isqrt(batch_size)
        place: np.ndarray = np.arange(GRID) * strata // GRID
        return (place[:, None] == place[None]) * strata / GRID**2
    if isinstance(stratify, AntitheticUniforms):
        return np.full((GRID, GRID), 2 / GRID**2) - np.eye(GRID)[::-1] / GRID
    return None


def _coarse(values: np.ndarray) -> np.ndarray:
    return values.reshape(_COARSE, -1).mean(1)
