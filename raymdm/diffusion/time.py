"""Time samplers: from the uniforms of a global batch to mask rates t and their weights."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from raymdm.diffusion.density import TimeDensity


class TimeDraw(NamedTuple):
    """Mask rates of a global batch and their importance weights, both float64[N]."""

    t: np.ndarray
    weight: np.ndarray


class TimeSampler(Protocol):
    """Maps u[N], the uniforms of the *global* optimiser step, to rates and weights with
    E[weight · l(t)] = ∫ l(t) dt over [0,1].
    """

    def __call__(self, uniforms: np.ndarray) -> TimeDraw:
        """t[N] and weight[N]."""


@dataclass(frozen=True)
class UniformTime:
    """t = u, weight 1 (Standard)."""

    def __call__(self, uniforms: np.ndarray) -> TimeDraw:
        """t[N] and weight[N]."""
        return TimeDraw(uniforms, np.ones_like(uniforms))


@dataclass(frozen=True)
class ImportanceTime:
    """t from a density by its exact inverse CDF, weight 1/density (P-POTS, paper section 4.1)."""

    density: TimeDensity

    def __call__(self, uniforms: np.ndarray) -> TimeDraw:
        """t[N] and weight[N]."""
        t = self.density.icdf(uniforms)
        return TimeDraw(t, self.density.weight(t))
