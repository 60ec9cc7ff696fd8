"""How the uniforms of one global optimiser step are spread over [0,1) (StraTS, arXiv 2511.18159).

Every worker computes all N of them, by address; a slot's place among the strata comes from a fresh
permutation of the step, so that it does not depend on the order of the rows. Each u is uniform on
its own, whatever the others are: that alone makes the estimate unbiased.
"""

from dataclasses import dataclass
from math import isqrt
from typing import Protocol

import numpy as np

from raymdm.diffusion.noise import time_noise
from raymdm.randomness import generator


class Stratify(Protocol):
    """The uniforms of a global batch."""

    def __call__(self, seed: int, step: int, batch_size: int) -> np.ndarray:
        """u[N] in [0,1], float64, one per slot of the global batch."""


@dataclass(frozen=True)
class IndependentUniforms:
    """Independent of each other (Standard)."""

    def __call__(self, seed: int, step: int, batch_size: int) -> np.ndarray:
        """u[N] in [0,1)."""
        return time_noise(seed, step, batch_size)


@dataclass(frozen=True)
class StratifiedUniforms:
    """Equal strata, each with as many slots as the others (or one more).

    Attributes:
        strata: K; None takes floor(sqrt N), as the paper does. K >= N is the lattice
            u_s = (pi(s) + v_s) / N.
    """

    strata: int | None = None

    def count(self, batch_size: int) -> int:
        """K for a batch of this size."""
        return isqrt(batch_size) if self.strata is None else min(self.strata, batch_size)

    def __call__(self, seed: int, step: int, batch_size: int) -> np.ndarray:
        """u[N] in [0,1)."""
        strata = self.count(batch_size)
        offset = int(generator(seed, "time", step, 2).integers(strata))
        stratum = strata_of(_order(seed, step, batch_size), offset, strata)
        return (stratum + time_noise(seed, step, batch_size)) / strata


@dataclass(frozen=True)
class LatticeUniforms:
    """As many strata as slots: the limit of stratification."""

    def __call__(self, seed: int, step: int, batch_size: int) -> np.ndarray:
        """u[N] in [0,1)."""
        return StratifiedUniforms(batch_size)(seed, step, batch_size)


@dataclass(frozen=True)
class AntitheticUniforms:
    """Slots in pairs u and 1 - u; the odd one out is alone."""

    def __call__(self, seed: int, step: int, batch_size: int) -> np.ndarray:
        """u[N] in [0,1]."""
        uniforms = time_noise(seed, step, batch_size)
        order = _order(seed, step, batch_size)
        pairs = order[: batch_size // 2 * 2].reshape(-1, 2)
        uniforms[pairs[:, 1]] = 1.0 - uniforms[pairs[:, 0]]
        return uniforms


def strata_of(order: np.ndarray, offset: int, strata: int) -> np.ndarray:
    """Stratum[N] of every slot, in 0..K-1; no stratum has over one slot more than another.

    Args:
        order: int64[N], a permutation of 0..N-1.
        offset: 0..K-1, drawn anew for every step. Where K does not divide N it chooses the strata
            that have a slot more: were they always the first, each u alone would not be uniform.
        strata: K.
    """
    return (order + offset) % strata


def _order(seed: int, step: int, batch_size: int) -> np.ndarray:
    return generator(seed, "time", step, 1).permutation(batch_size)
