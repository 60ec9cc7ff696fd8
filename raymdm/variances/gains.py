"""Variances of whole batches, and their ratios with paired bootstrap intervals.

Row-level variance cannot see stratification, so estimators are compared by N Var(mean over a global
batch of N rows). Every group of rows is run twice, with other rates and masks: the difference of
the two shows A + B (rows fixed), the spread over groups A + B + C (rows redrawn).
"""

from collections.abc import Callable

import numpy as np

from raymdm.randomness import generator
from raymdm.variances.figures import Figure

# Place in the stream "probe", under the first word 0.
_RESAMPLES = 8

Variance = Callable[[np.ndarray | None], np.ndarray]


class BatchVariances:
    """Of one quantity under one estimator."""

    def __init__(self, values: np.ndarray, batch_size: int) -> None:
        """From the batch means values[G, 2, D] of G groups, each run twice, of N rows each."""
        values = values - values.mean((0, 1))
        self.batch_size = batch_size
        self.halved = (np.square(values[:, 0] - values[:, 1]).sum(-1)) / 2
        self.squares = np.square(values).sum(-1)
        self.products = np.einsum("grd,hrd->rgh", values, values)

    def fixed(self, weights: np.ndarray | None = None) -> np.ndarray:
        """N Var with the rows held fixed, [R] under weights[R, G] of the groups (None: equal)."""
        return self.batch_size * (self._given(weights) @ self.halved)

    def redrawn(self, weights: np.ndarray | None = None) -> np.ndarray:
        """N Var with the rows redrawn, the mean of that of the two runs of every group; [R]."""
        weights = self._given(weights)
        second = weights @ self.squares
        mean = np.einsum("bg,rgh,bh->br", weights, self.products, weights, optimize=True)
        # Unbiased under any weights; see raymdm.diffusion.decomposition.
        spread = (second - mean) / (1 - np.square(weights).sum(-1))[:, None]
        return self.batch_size * spread.mean(1)

    def _given(self, weights: np.ndarray | None) -> np.ndarray:
        groups = len(self.halved)
        return np.full((1, groups), 1 / groups) if weights is None else weights


def resampled_groups(seed: int, count: int, groups: int) -> np.ndarray:
    """Weights[R, G] of the groups in every bootstrap resample, the same for all estimators."""
    random = generator(seed, "probe", 0, _RESAMPLES)
    return random.multinomial(groups, np.full(groups, 1 / groups), count) / groups


def figure(value: np.ndarray, drawn: np.ndarray) -> Figure:
    """A value[1] with the 95% percentile interval of its resamples[R]."""
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Figure(value=float(value[0]), low=float(low), high=float(high))


def ratio(above: Variance, below: Variance, weights: np.ndarray) -> Figure:
    """A ratio of two variances with its interval; both sides resampled together."""
    return figure(above(None) / below(None), above(weights) / below(weights))
