"""What a count probe predicts of an estimator, without running it: variances and their optimum.

With z(u) the weighted value of a row whose uniform is u, and zbar(u) its mean over rows and masks,
a batch of N independent rows has

    N Var(mean) = ∫ E|z(u)|² du - ∫∫ K(u, u') zbar(u) · zbar(u') du du'

where the kernel K says how u is spread: 1 for independent u, a delta for the lattice (the limit of
large N), K times the indicator of a common stratum for K strata, and 2 - delta(u + u' - 1) for
antithetic pairs. Means are multiplied across the probe's two independent halves and across
different rows only, so that noise does not bias them. Source: the design note "estimators",
sections 3 to 5. Integrals are sums over cells of t that are finer towards the pole at 0.
"""

from dataclasses import dataclass

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
from raymdm.diffusion.time import ClippedTime, TimeSampler, UniformTime

_CELLS = 1024
_COARSE = 32
"""Groups of cells over which second moments are averaged before roots are taken of them."""
_EDGES = np.linspace(0, 1, _CELLS + 1) ** 2
_MIDDLE = (_EDGES[1:] + _EDGES[:-1]) / 2


@dataclass(frozen=True)
class Correlation:
    """MIRROR's rho at increasing rates."""

    t: np.ndarray
    rho: np.ndarray

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """At any rates, by interpolation."""
        return np.interp(t, self.t, self.rho)


class Prediction:
    """Predictions from one probe, for the loss or for the gradient."""

    def __init__(self, moments: CountMoments, which: str) -> None:
        """From a probe's draws, for `loss` or `gradient`."""
        self.moments = moments
        self.products: np.ndarray
        self.squares: np.ndarray
        if which == "loss":
            self.products = np.outer(moments.losses, moments.losses)
            self.squares = moments.losses**2
        else:
            assert moments.sketches is not None
            assert moments.squared_norms is not None
            self.products = moments.sketches @ moments.sketches.T
            self.squares = moments.squared_norms
        across = moments.lattices[:, None] != moments.lattices[None]
        same = moments.rows[:, None] == moments.rows[None]
        self.different = self.products * (across & ~same) / (across & ~same).sum()
        self.same = self.products * (across & same) / max(1, (across & same).sum())
        self._shares: dict[float, np.ndarray] = {}

    def variance(
        self, estimator: Estimator, batch_size: int, correlation: Correlation
    ) -> float | None:
        """N Var(batch mean), rows redrawn; None where there is no formula for the composition."""
        if not _has_formula(estimator):
            return None
        mass = estimator.time.mass(_EDGES[:-1], _EDGES[1:])
        values, squares = self._values(estimator.law, estimator.time)
        second = self._second(estimator, values, squares, correlation)
        pairs = _pairs(estimator.stratify, batch_size, values, mass)
        return float(second @ mass - (pairs * self.different).sum())

    def optimum(self, estimator: Estimator, correlation: Correlation) -> float | None:
        """The least `variance` over all densities, with this law, these views and this limit."""
        if not _has_formula(estimator):
            return None
        mass = np.diff(_EDGES)
        values, squares = self._values(estimator.law, UniformTime())
        second = self._second(estimator, values, squares, correlation)
        if limit(estimator.stratify) == "stratified":
            mean_square = (values * (self.different @ values)).sum(0)
            rest = np.maximum(_coarse(second - mean_square), 0.01 * _coarse(second))
            return float((np.sqrt(rest) @ _coarse(mass, total=True)) ** 2)
        whole = values @ mass
        root = np.sqrt(_coarse(second)) @ _coarse(mass, total=True)
        return float(root**2 - whole @ self.different @ whole)

    def _values(self, law: Law, time: TimeSampler) -> tuple[np.ndarray, np.ndarray]:
        """c[D, cells] with zbar = mean over draws of c y, and what multiplies |y|² in E|z|²."""
        n, k = self.moments.lengths[:, None], self.moments.counts[:, None]
        if isinstance(law, CountLaw):
            inside = np.minimum(_EDGES[1:], k / n) - np.maximum(_EDGES[:-1], (k - 1) / n)
            share = np.maximum(inside, 0) / np.diff(_EDGES) / self.moments.proposals[:, None]
            share = share / share.mean(0)
            value = law.weight(time, (k - 0.5) / n, n) / k
            return share * value, share * value**2
        assert isinstance(law, RateLaw)
        alpha = law.mask_probability(_MIDDLE)[None]
        if law.epsilon not in self._shares:
            drawn = binom.pmf(k, n, alpha) / self.moments.proposals[:, None]
            self._shares[law.epsilon] = drawn
        share = self._shares[law.epsilon]
        # The mean of k and of k² over the draws, made what it is under the binomial law: that takes
        # out most of the noise of which k were drawn.
        first = (share * k / (n * alpha)).mean(0)
        second = (share * (k / (n * alpha)) ** 2).mean(0)
        wanted = ((1 + (n - 1) * alpha) / (n * alpha)).mean(0)
        value = time.weight(_MIDDLE)[None] / (n * alpha)
        return share * value / first, share * value**2 * (wanted / second)

    def _second(
        self,
        estimator: Estimator,
        values: np.ndarray,
        squares: np.ndarray,
        correlation: Correlation,
    ) -> np.ndarray:
        """E|z|²[cells] of the mean over the views."""
        second = (squares * self.squares[:, None]).mean(0)
        views = estimator.law.views
        if views == 1:
            return second
        rows = (values * (self.same @ values)).sum(0)
        independent = isinstance(estimator.law, CountLaw) or _is_independent(estimator.law)
        rho = np.zeros(_CELLS) if independent else correlation(_MIDDLE)
        return rows + (second - rows) * (1 + (views - 1) * rho) / views


def limit(stratify: Stratify) -> str:
    """Which optimum an estimator can be held to: `iid` or `stratified`."""
    spread = isinstance(stratify, LatticeUniforms | StratifiedUniforms)
    return "stratified" if spread else "iid"


def _has_formula(estimator: Estimator) -> bool:
    law = estimator.law
    if estimator.with_syntax or isinstance(estimator.time, ClippedTime):
        return False
    if isinstance(law, CountLaw):
        return True
    if not isinstance(law, RateLaw) or law.delimiter_rates != "same":
        return False
    mirrored = isinstance(law.masker, MirrorMasker | RotationMasker) and law.views == 2
    return mirrored or _is_independent(law)


def _is_independent(law: Law) -> bool:
    return isinstance(law, RateLaw) and isinstance(law.masker, IndependentMasker)


def _pairs(stratify: Stratify, batch_size: int, values: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """∫∫ K(u, u') c_d(u) c_e(u') du du' for all pairs of draws, float64[D, D]."""
    whole = values @ mass
    independent = np.outer(whole, whole)
    upper = np.cumsum(mass)
    middle = upper - mass / 2
    if isinstance(stratify, IndependentUniforms):
        return independent
    if isinstance(stratify, LatticeUniforms):
        return (values * mass) @ values.T
    if isinstance(stratify, AntitheticUniforms):
        partner = np.minimum(np.searchsorted(upper, 1 - middle), len(mass) - 1)
        return 2 * independent - (values * mass) @ values[:, partner].T
    assert isinstance(stratify, StratifiedUniforms)
    strata = stratify.count(batch_size)
    place = np.minimum((middle * strata).astype(int), strata - 1)
    sums = np.stack([values[:, place == s] @ mass[place == s] for s in range(strata)])
    return strata * sums.T @ sums


def _coarse(values: np.ndarray, *, total: bool = False) -> np.ndarray:
    """Means over groups of cells, each cell by its width; or the sums."""
    grouped = values.reshape(_COARSE, -1)
    if total:
        return grouped.sum(1)
    width = np.diff(_EDGES).reshape(_COARSE, -1)
    return (grouped * width).sum(1) / width.sum(1)
