"""g(t), v(t) and rho(t) from rows that share their rates, with intervals over the rows."""

import numpy as np

from raymdm.randomness import generator
from raymdm.variances.figures import Curves, Figure

# Place in the stream "probe", under the first word 0.
_RESAMPLES = 9


def conditional_curves(t: np.ndarray, values: np.ndarray, resamples: int, seed: int) -> Curves:
    """The curves of one quantity.

    Args:
        t: float64[T], ascending.
        values: float64[S, T, M, 2, D]: rows, rates, masks, MIRROR's two views, components.
        resamples: of the rows.
        seed: of the resamples.
    """
    rows = len(values)
    first = values[..., 0, :]
    means = first.mean(2)
    second = np.square(first).sum(-1).mean(2)
    # Inner products of the rows' means at each rate.
    products = np.einsum("sjd,rjd->jsr", means, means)
    centred = values - values.mean(2, keepdims=True)
    masks = values.shape[2]
    covariance = (centred[..., 0, :] * centred[..., 1, :]).sum((2, -1)) / (masks - 1)
    variance = np.square(centred).sum((2, -1)).mean(-1) / (masks - 1)

    random = generator(seed, "probe", 0, _RESAMPLES)
    drawn = random.multinomial(rows, np.full(rows, 1 / rows), resamples) / rows
    weights = np.concatenate([np.full((1, rows), 1 / rows), drawn])
    repeats = np.square(weights).sum(-1)[:, None]
    own = np.einsum("jss->js", products)
    whole = np.einsum("bs,jsr,br->bj", weights, products, weights, optimize=True)
    squared_mean = (whole - np.square(weights) @ own.T) / (1 - repeats)
    spread = weights @ second - squared_mean
    scalar = values.shape[-1] == 1
    size = weights @ means[..., 0] if scalar else np.sqrt(np.maximum(squared_mean, 0))
    above, below = weights @ covariance, weights @ variance
    rho = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    pooled = above.sum(1) / below.sum(1)
    return Curves(
        t=t.tolist(),
        g=_figures(size),
        v=_figures(spread),
        rho=_figures(rho),
        pooled_rho=_figures(pooled[:, None])[0],
    )


def _figures(values: np.ndarray) -> list[Figure]:
    """From [1 + R, T]: the estimate, then its resamples."""
    low, high = np.quantile(values[1:], [0.025, 0.975], axis=0)
    return [
        Figure(value=float(value), low=float(a), high=float(b))
        for value, a, b in zip(values[0], low, high, strict=True)
    ]
