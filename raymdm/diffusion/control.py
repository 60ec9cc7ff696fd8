"""The EMA control variate: steadies the reported loss, and leaves the gradient as it is.

    reported = w (l - c b[t]) + c ∫ b,      b[bin of t] a moving average of l from before the step

b is a number, so the gradient of the reported loss is that of w l: EMA trains exactly as Standard
does (arXiv 2511.18159, appendix).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class MovingAverage:
    """b[bins] over equal bins of t, of the loss per unit of its denominator.

    Attributes:
        bins: how many.
        decay: weight of the past.
        coefficient: c.
        values: float64[bins]; 0 before a bin's first row, which changes no expectation.
        seen: bool[bins].
    """

    bins: int
    decay: float
    coefficient: float
    values: np.ndarray = field(default_factory=lambda: np.empty(0))
    seen: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=bool))

    def __post_init__(self) -> None:
        if not len(self.values):
            self.values = np.zeros(self.bins)
            self.seen = np.zeros(self.bins, dtype=bool)

    def offsets(self, t: np.ndarray, weight: np.ndarray, denominators: np.ndarray) -> np.ndarray:
        """What is added to the weighted losses[B] of rows: (c ∫b - w c b[t]) times denominator."""
        control = self.values.mean() - weight * self.values[self._bin(t)]
        return self.coefficient * control * denominators

    def update(self, t: np.ndarray, losses: np.ndarray, denominators: np.ndarray) -> None:
        """Take in a step's rows: t[N], unweighted losses[N], denominators[N], all workers'."""
        index = self._bin(t)
        count = np.bincount(index, minlength=self.bins)
        hit = count > 0
        total = np.bincount(index, losses / denominators, minlength=self.bins)
        mean = total[hit] / count[hit]
        past = np.where(self.seen[hit], self.decay, 0.0)
        self.values[hit] = past * self.values[hit] + (1 - past) * mean
        self.seen |= hit

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"values": self.values.tolist(), "seen": self.seen.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """As it was saved."""
        self.values = np.array(state["values"], dtype=np.float64)
        self.seen = np.array(state["seen"], dtype=bool)

    def _bin(self, t: np.ndarray) -> np.ndarray:
        return np.minimum((t * self.bins).astype(np.int64), self.bins - 1)
