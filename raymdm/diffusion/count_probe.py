"""Probe a model at random numbers of masked tokens, from which every rate follows (ours).

The sum S_k of a row's cross-entropies, given k of its n response tokens masked, does not know the
rate; the rate only says how probable k is. So one set of draws gives the moments at all rates,

    E[l²|t] = E_n sum_k Bin(k; n, alpha(t)) E|S_k|² / (n alpha(t))²

(the design note "estimators", section 3), and those of exact-count masking, where l = S_k / k.
Draw d masks k = 1 + floor(n u²) tokens, u in [0,1): small k, where the pole of the rate law is,
come more often. The proposal probability of k is sqrt(k/n) - sqrt((k-1)/n).

The draws form two independent lattices of u, both of which visit all rows. Draws of one lattice
depend on each other, so products of two draws, which squares of means are made of, are taken across
the lattices only.

Curves are self-normalised: a weighted mean of |S_k/k|², or of its products, times what the count
alone contributes, which is known exactly. Had every token the same loss they would have no error,
where plain importance weights err by how many draws fell near n alpha. The price is a bias of
relative order 1/D; with all masks listed instead of drawn, the curves are exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor, nn

from raymdm.diffusion.cross_entropy import masked_cross_entropy
from raymdm.diffusion.law import CountLaw
from raymdm.diffusion.probe import Curve, Gradient, first_measured, measured
from raymdm.diffusion.rows import Rows
from raymdm.randomness import generator

Which: TypeAlias = Literal["loss", "gradient"]

_MEASURED = ("losses", "sketches", "squared_norms")

# Second words of addresses in the stream "probe" whose first word is 0; the grid probe has 0 and 1.
_PLAN, _SUBSET = 2, 3


@dataclass(frozen=True)
class CountMoments:
    """What D draws of the count probe measured.

    Attributes:
        lengths: int64[D], n of the draw's row.
        counts: int64[D], k, how many of those tokens were masked.
        proposals: float64[D], the probability with which that k was drawn.
        rows: int64[D], which of the probed rows it was.
        lattices: int64[D], 0 or 1; draws of different lattices are independent.
        losses: float64[D], S_k, the sum of the cross-entropies; NaN where another worker measured.
        sketches: float64[D, dim], the sketched gradient of S_k.
        squared_norms: float64[D], the exact squared norm of that gradient.
    """

    lengths: np.ndarray
    counts: np.ndarray
    proposals: np.ndarray
    rows: np.ndarray
    lattices: np.ndarray
    losses: np.ndarray
    sketches: np.ndarray | None = None
    squared_norms: np.ndarray | None = None

    @classmethod
    def merged(cls, shares: Sequence["CountMoments"]) -> "CountMoments":
        """All draws from the shares of all workers."""
        names = [name for name in _MEASURED if getattr(shares[0], name) is not None]
        return replace(
            shares[0],
            **{name: first_measured([getattr(share, name) for share in shares]) for name in names},
        )

    def by_token(self) -> "CountMoments":
        """The same with every value times its row's n, as under `normalize: token`."""
        n = self.lengths
        return replace(
            self,
            losses=self.losses * n,
            sketches=None if self.sketches is None else self.sketches * n[:, None],
            squared_norms=None if self.squared_norms is None else self.squared_norms * n**2,
        )


def count_probe(
    model: nn.Module,
    mask_token_id: int,
    rows: Rows,
    *,
    seed: int,
    draws: int,
    batch_size: int,
    gradient: Gradient | None = None,
    eligible: Tensor | None = None,
    part: int = 0,
    parts: int = 1,
    place: int = 0,
) -> CountMoments:
    """Measure D draws: a forward of one row each, with a backward where the gradient is asked for.

    Args:
        model: as `masked_cross_entropy` calls it.
        mask_token_id: the id that replaces masked tokens.
        rows: the S training rows probed, each D/S times.
        seed: the run's seed.
        draws: D.
        batch_size: draws of one forward; gradients take one at a time.
        gradient: None for losses only.
        eligible: bool[S, L], the positions that may be masked; None for the response.
        part: which share of the forwards to run; the other draws stay NaN.
        parts: shares: workers divide the forwards, and each draw comes out as it would for one.
        place: first word of the addresses: a second probe elsewhere shares no noise with the first.
    """
    eligible = rows.eligible if eligible is None else eligible
    plan, u = _planned(seed, draws, eligible.sum(-1).cpu().numpy(), place)
    size = batch_size if gradient is None else 1
    losses = np.full(draws, np.nan)
    vectors = np.full((draws, gradient[1].dimension if gradient else 1), np.nan)
    squares = np.full(draws, np.nan)
    for start in range(0, draws, size)[part::parts]:
        chunk = slice(start, start + size)
        picked = _picked(rows, eligible, plan.rows[chunk])
        noise = [
            generator(seed, "probe", place, _SUBSET, draw).random(eligible.shape[1])
            for draw in range(draws)[chunk]
        ]
        plane = torch.from_numpy(np.stack(noise))[None, :, : picked.input_ids.shape[1]]
        masks = CountLaw().draw(u[chunk] ** 2, plane, picked.eligible, None).hidden[0]
        with torch.set_grad_enabled(gradient is not None):
            sums = masked_cross_entropy(
                model, picked.input_ids, picked.attention_mask, masks, mask_token_id
            )
        losses[chunk] = sums.detach().double().cpu().numpy()
        vectors[chunk], squares[chunk] = measured(sums, gradient)
    if gradient is None:
        return replace(plan, losses=losses)
    return replace(plan, losses=losses, sketches=vectors, squared_norms=squares)


def _planned(
    seed: int, draws: int, lengths: np.ndarray, place: int = 0
) -> tuple[CountMoments, np.ndarray]:
    """What to draw, nothing measured yet, and its u[D], from the n[S] of all rows."""
    random = generator(seed, "probe", place, _PLAN)
    order = random.permutation(len(lengths))
    draw = np.arange(draws)
    lattices: np.ndarray = draw % 2
    u = np.empty(draws)
    for lattice in (0, 1):
        places = random.permutation(np.sum(lattices == lattice))
        u[lattices == lattice] = (places + random.random(len(places))) / len(places)
    rows = order[draw // 2 % len(order)]
    n = lengths[rows]
    k = CountLaw.counts(u**2, n)
    proposals = np.sqrt(k / n) - np.sqrt((k - 1) / n)
    return CountMoments(n, k, proposals, rows, lattices, np.full(draws, np.nan)), u


def _picked(rows: Rows, eligible: Tensor, index: np.ndarray) -> Rows:
    """The rows of some draws, cut to the longest of them."""
    at = torch.from_numpy(index).to(rows.input_ids.device)
    samples = [rows.samples[row] for row in index]
    return Rows(rows.input_ids[at], rows.attention_mask[at], eligible[at], samples).slice(
        0, len(index)
    )


class _Kernel(NamedTuple):
    """How much each draw counts at each point of a curve, float64[T, D]; logs, mean weight 1.

    Attributes:
        once: for E[k y], y the mean per masked token: weights k Bin(k) / E k over the proposal.
        twice: for E|k y|²: weights k² Bin(k) / E k² over the proposal.
        factor: E k² / (E k)², what the noise of the count multiplies second moments with.
    """

    once: np.ndarray
    twice: np.ndarray
    factor: np.ndarray


def rate_moments(moments: CountMoments, t: np.ndarray, epsilon: float, which: Which) -> Curve:
    """Moments of l = S / (n alpha(t)), as of masking every token with probability alpha(t).

    Args:
        moments: of the probe.
        t: float64[T], increasing rates in [0,1].
        epsilon: alpha(t) = (1 - epsilon) t + epsilon.
        which: of the loss or of its gradient.

    Raises:
        ValueError: gradients that were not measured.
    """
    kernel = _rate_kernel(moments, t, epsilon)
    return Curve(t, _second(moments, kernel, which), _products(moments, kernel, which, False))


def row_mean_square(
    moments: CountMoments, t: np.ndarray, epsilon: float, which: Which
) -> np.ndarray:
    """E over rows of |g(x0, t)|², float64[T], from products of draws of the same row.

    With it A(t) = second - row_mean_square. Few pairs of draws share a row, so it is noisier than
    the others. Arguments and errors as for `rate_moments`.
    """
    return _products(moments, _rate_kernel(moments, t, epsilon), which, True)


def count_curve(moments: CountMoments, points: int, which: Which) -> Curve:
    """Moments of l = S_k / k given x, where k = 1 + floor(n x): those of exact-count masking.

    Every value is the mean over a window of x, given at its middle. The windows are equally wide in
    u = sqrt(x), wide enough for 16 draws (but at most 1/2). What the curve does inside a window is
    lost, an error of the order of the square of the width; nothing else is.

    Args:
        moments: of the probe.
        points: T.
        which: of the loss or of its gradient.

    Returns:
        The curve, its `t` being x.

    Raises:
        ValueError: gradients that were not measured.
    """
    width = min(0.5, max(1 / points, 16 / len(moments.counts)))
    start = np.linspace(0.0, 1.0 - width, points)
    low, high = start[:, None] ** 2, (start[:, None] + width) ** 2
    cell_low, cell_high = (moments.counts - 1) / moments.lengths, moments.counts / moments.lengths
    overlap = np.maximum(np.minimum(high, cell_high) - np.maximum(low, cell_low), 0.0)
    with np.errstate(divide="ignore"):
        weights = np.log(overlap / ((high - low) * moments.proposals))
    kernel = _Kernel(weights, weights, np.ones_like(weights))
    x = (low + high)[:, 0] / 2
    return Curve(x, _second(moments, kernel, which), _products(moments, kernel, which, False))


def _rate_kernel(moments: CountMoments, t: np.ndarray, epsilon: float) -> _Kernel:
    n, k = moments.lengths, moments.counts
    # Below 1, so that a draw of fewer than n tokens keeps some weight where no draw masked all.
    alpha = np.minimum((1.0 - epsilon) * t + epsilon, 1.0 - 1e-12)[:, None]
    once = binom.logpmf(k, n, alpha) - np.log(moments.proposals) + np.log(k / (n * alpha))
    spread = 1.0 + (n - 1) * alpha
    return _Kernel(once, once + np.log(k / spread), spread / (n * alpha))


def _second(moments: CountMoments, kernel: _Kernel, which: Which) -> np.ndarray:
    squares = _per_token(moments, which)[1]
    log_weights = kernel.twice + np.log(_shares(moments))
    weights = np.exp(log_weights - log_weights.max(1, keepdims=True))
    second: np.ndarray = (weights * kernel.factor * squares).sum(1) / weights.sum(1)
    return second


def _products(moments: CountMoments, kernel: _Kernel, which: Which, same_row: bool) -> np.ndarray:
    """Weighted mean of y_d · y_e, float64[T], over pairs of the two lattices in the same row or in
    different ones; NaN where there is no pair.
    """
    left, right = moments.lattices == 0, moments.lattices == 1
    vectors = _per_token(moments, which)[0]
    products = vectors[left] @ vectors[right].T
    paired = (moments.rows[left][:, None] == moments.rows[right]) == same_row
    log_weights = kernel.once + np.log(_shares(moments))
    means = np.full(len(log_weights), np.nan)
    for point, logs in enumerate(log_weights):
        # In logarithms: where alpha is near 1 the weights of all pairs but few underflow.
        pairs = np.where(paired, logs[left][:, None] + logs[right], -np.inf)
        if np.isfinite(pairs.max()):
            weights = np.exp(pairs - pairs.max())
            means[point] = (weights * products).sum() / weights.sum()
    return means


def _per_token(moments: CountMoments, which: Which) -> tuple[np.ndarray, np.ndarray]:
    """S_k / k as vectors[D, dim], and its squares[D]."""
    k = moments.counts
    if which == "loss":
        return (moments.losses / k)[:, None], (moments.losses / k) ** 2
    if moments.sketches is None or moments.squared_norms is None:
        raise ValueError("this probe measured losses only: no moments of the gradient")
    return moments.sketches / k[:, None], moments.squared_norms / k**2


def _shares(moments: CountMoments) -> np.ndarray:
    """Weights[D] that let every row count alike in its lattice, however often it was drawn."""
    places = 2 * moments.rows + moments.lattices
    return 1.0 / np.bincount(places)[places]
