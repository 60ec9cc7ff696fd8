"""Time samplers: from a uniform number to a mask rate t, and the weight that goes with it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from raymdm.diffusion.density import TimeDensity


class TimeSampler(Protocol):
    """Maps uniforms to rates; E[weight(t) · l(t)] is the integral of l that it stands for."""

    def __call__(self, uniforms: np.ndarray) -> np.ndarray:
        """t, float64, same shape as the uniforms in [0,1]."""

    def weight(self, t: np.ndarray) -> np.ndarray:
        """The importance weight of a row at rate t."""

    def mass(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Probability that low <= t < high."""


@dataclass(frozen=True)
class UniformTime:
    """t = u, weight 1 (Standard)."""

    def __call__(self, uniforms: np.ndarray) -> np.ndarray:
        """The uniforms themselves."""
        return uniforms

    def weight(self, t: np.ndarray) -> np.ndarray:
        """1."""
        return np.ones_like(t)

    def mass(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """The width."""
        return high - low


@dataclass(frozen=True)
class ClippedTime:
    """t uniform on [low, high], weight 1: the mean of g over that interval (BD3-LM, Arriola 2025).

    Its target is not the loss over all rates, and its value cannot be compared with theirs.
    """

    low: float
    high: float

    def __call__(self, uniforms: np.ndarray) -> np.ndarray:
        """From low to high, in proportion."""
        return self.low + (self.high - self.low) * uniforms

    def weight(self, t: np.ndarray) -> np.ndarray:
        """1."""
        return np.ones_like(t)

    def mass(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Share of the interval."""
        inside = np.clip(high, self.low, self.high) - np.clip(low, self.low, self.high)
        return inside / (self.high - self.low)


@dataclass(frozen=True)
class ImportanceTime:
    """t from a density by its exact inverse CDF, weight 1/density (P-POTS, paper section 4.1)."""

    density: TimeDensity

    def __call__(self, uniforms: np.ndarray) -> np.ndarray:
        """Where F(t) = u."""
        return self.density.icdf(uniforms)

    def weight(self, t: np.ndarray) -> np.ndarray:
        """1/f(t)."""
        return self.density.weight(t)

    def mass(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """F(high) - F(low)."""
        return self.density.cdf(high) - self.density.cdf(low)
