"""Probe a model on a grid of rates for the curve that a density is fitted to.

The expectations are over rows and masks, so the second moment is the whole g² + v (paper, section
4.1). Everything is addressed by the seed and runs in micro-batches of a fixed size, in row order,
summed in float64: the result does not depend on the cluster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from raymdm.diffusion.estimator import Estimator
from raymdm.diffusion.gradients import Sketch, row_gradients
from raymdm.diffusion.noise import mask_noise
from raymdm.diffusion.rows import Rows
from raymdm.randomness import generator

Gradient: TypeAlias = tuple[Mapping[str, nn.Parameter], Sketch]
"""The parameters whose gradient is measured, and what it is reduced to."""


@dataclass(frozen=True)
class Curve:
    """Moments of a row's value y (its loss, or the gradient of that) given the rate.

    Attributes:
        t: float64[T], increasing rates.
        second: float64[T], E|y|² over rows and masks.
        mean_square: float64[T], an estimate of |E y|² from products of different rows only, so that
            noise does not raise it (and can make it negative); NaN for a single row.
    """

    t: np.ndarray
    second: np.ndarray
    mean_square: np.ndarray

    @classmethod
    def merged(cls, shares: Sequence["Curve"]) -> "Curve":
        """The whole curve from the shares of all workers, each NaN where others measured."""
        return cls(
            shares[0].t,
            first_measured([share.second for share in shares]),
            first_measured([share.mean_square for share in shares]),
        )


def first_measured(shares: Sequence[np.ndarray]) -> np.ndarray:
    """The first share that is not NaN, element by element."""
    return reduce(lambda one, other: np.where(np.isnan(one), other, one), shares)


def measured(losses: Tensor, gradient: Gradient | None) -> tuple[np.ndarray, np.ndarray]:
    """Vectors[B, dim] whose products stand for those of the values, and exact squares[B], float64.

    Args:
        losses: [B], with their graph if the gradient is asked for.
        gradient: None for the losses themselves (dim 1), else what their gradient is taken in.
    """
    if gradient is None:
        values = losses.double().cpu().numpy()
        return values[:, None], values**2
    sketches, squared_norms = row_gradients(losses, *gradient)
    return sketches.cpu().numpy(), squared_norms.cpu().numpy()


def grid_probe(
    model: nn.Module,
    mask_token_id: int,
    rows: Rows,
    estimator: Estimator,
    *,
    seed: int,
    rates: int = 64,
    masks: int = 4,
    batch_size: int = 64,
    gradient: Gradient | None = None,
    part: int = 0,
    parts: int = 1,
) -> Curve:
    """The moments at T rates, one in each of T equal strata of (0,1).

    Args:
        model: as `Estimator.row_losses` calls it.
        mask_token_id: the id that replaces masked tokens.
        rows: the S training rows probed at every rate.
        estimator: the run's composition; its law and views are used, its time sampler not.
        seed: the run's seed.
        rates: T.
        masks: M masks per row and rate.
        batch_size: rows of one forward, views not counted; gradients take one row at a time.
        gradient: None for moments of the loss.
        part: which share of the rates to measure; the others stay NaN.
        parts: shares: workers divide the rates, and each rate comes out as it would for one.
    """
    offsets = generator(seed, "probe", 0).random(rates)
    t = (np.arange(rates) + offsets) / rates
    replicas = estimator.law.replicas
    length = rows.input_ids.shape[1]
    size = batch_size if gradient is None else 1
    second, mean_square = np.full((2, rates), np.nan)
    for index, rate in list(enumerate(t))[part::parts]:
        noise = mask_noise(seed, index + 1, rows.samples, length, masks * replicas, "probe")
        vectors, squares = [], []
        for start in range(0, len(rows), size):
            chunk = rows.slice(start, start + size)
            planes = noise[:, start : start + size, : chunk.input_ids.shape[1]]
            total: np.ndarray | float = 0.0
            for draw in planes.split(replicas):
                with torch.set_grad_enabled(gradient is not None):
                    losses = estimator.row_losses(
                        model, mask_token_id, chunk, np.full(len(chunk), rate), draw
                    )
                vector, square = measured(losses, gradient)
                total = total + vector
                squares.append(square)
            vectors.append(total)
        second[index] = np.concatenate(squares).mean()
        mean_square[index] = _product_of_different_rows(np.concatenate(vectors) / masks)
    return Curve(t, second, mean_square)


def _product_of_different_rows(means: np.ndarray) -> float:
    """Mean of y_s · y_r over all pairs s != r, from the rows' means[S, dim]; NaN for S = 1."""
    pairs = len(means) * (len(means) - 1)
    total = (means.sum(0) ** 2).sum() - (means**2).sum()
    return float(total / pairs) if pairs else np.nan
