"""The negative evidence lower bound (NELBO), in nats: the figure that runs are compared by.

    NELBO(x0) = ∫ E_m[ sum_{i masked} CE_i ] / t dt
              = E_{k uniform on 1..n} E_{|m| = k}[ (n/k) sum_{i masked} CE_i ]

with eps = 0 and no weight of the training estimator (LLaDA, arXiv 2502.09992, appendix). Short
responses are summed exactly over all masks; longer ones use frozen random k-subsets, stratified
over k, that are the same for every run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import comb

import numpy as np
import torch
from torch import nn

from raymdm.diffusion.cross_entropy import masked_cross_entropy
from raymdm.diffusion.guidance import Guided
from raymdm.diffusion.rows import Rows
from raymdm.randomness import generator

# Not the run's seed: every run is measured on the same masks.
FROZEN_SEED = 0

DrawMasks = Callable[[int, int, int], list[np.ndarray]]
"""(response tokens n, sample number, draws) -> that many masks, each the sorted positions among the
n that are masked, one from every stratum of the number masked and independent of the others."""


@dataclass(frozen=True)
class Nelbo:
    """NELBO of some rows (of a causal model their negative log-likelihood: `likelihood.py`).

    Attributes:
        per_row: float64[B], nats of each response.
        variance: float64[B], estimated variance of `per_row` from the random masks, right or too
            large on average (`stratified_variance`); 0 where exact.
        tokens: int64[B], response tokens.
    """

    per_row: np.ndarray
    variance: np.ndarray
    tokens: np.ndarray

    @property
    def per_token(self) -> np.ndarray:
        """float64[B], nats per token of each response; 0 for an empty one."""
        return self.per_row / np.maximum(self.tokens, 1)


@dataclass(frozen=True)
class _Plan:
    """Masks to evaluate: for each, its row, its positions among the eligible, and its weight."""

    row: np.ndarray
    masks: list[np.ndarray]
    weight: np.ndarray


def nelbo(
    model: nn.Module,
    mask_token_id: int,
    rows: Rows,
    *,
    exact_up_to: int = 4,
    draws: int = 8,
    batch_size: int = 256,
    guidance: float = 0.0,
) -> Nelbo:
    """NELBO of every row; noise depends only on the sample numbers.

    Args:
        model: called as model(input_ids, attention_mask, select=…) -> logits[M, V].
        mask_token_id: the id that replaces masked tokens.
        rows: B rows.
        exact_up_to: responses of at most this many tokens are summed over all 2^n masks.
        draws: masks for each longer response.
        batch_size: rows of one forward; does not change the result beyond rounding.
        guidance: w of classifier-free guidance (`Guided`); the prompt is all that is not eligible.
    """
    return nelbo_under(
        frozen_masks,
        model,
        mask_token_id,
        rows,
        exact_up_to=exact_up_to,
        draws=draws,
        batch_size=batch_size,
        guidance=guidance,
    )


@torch.no_grad()
def nelbo_under(
    draw_masks: DrawMasks,
    model: nn.Module,
    mask_token_id: int,
    rows: Rows,
    *,
    exact_up_to: int,
    draws: int,
    batch_size: int,
    guidance: float,
) -> Nelbo:
    """NELBO of every row with masks from `draw_masks`; the other arguments are those of `nelbo`."""
    lengths = rows.response_lengths.cpu().numpy()
    plan = _plan(draw_masks, lengths, rows.samples, exact_up_to, draws)
    positions = [row.nonzero()[:, 0] for row in rows.eligible]
    values: np.ndarray = np.empty(len(plan.row))
    for start in range(0, len(plan.row), batch_size):
        chunk = torch.from_numpy(plan.row[start : start + batch_size]).to(rows.input_ids.device)
        attention = rows.attention_mask[chunk]
        width = int(attention.sum(-1).max())
        attention, eligible = attention[:, :width], rows.eligible[chunk][:, :width]
        masked = torch.zeros_like(eligible)
        for index, row in enumerate(chunk.tolist()):
            masked[index, positions[row][plan.masks[start + index]]] = True
        asked: nn.Module | Guided = model
        if guidance:
            asked = Guided(model, attention & ~eligible, mask_token_id, guidance)
        ids = rows.input_ids[chunk][:, :width]
        sums = masked_cross_entropy(asked, ids, attention, masked, mask_token_id)
        values[start : start + len(chunk)] = sums.double().cpu().numpy()
    weighted = values * plan.weight
    per_row = np.bincount(plan.row, weighted, minlength=len(rows))
    sampled = lengths > exact_up_to
    variance: np.ndarray = np.zeros(len(rows))
    drawn = draws * weighted[sampled[plan.row]].reshape(-1, draws)
    variance[sampled] = stratified_variance(drawn)
    return Nelbo(per_row, variance, lengths)


def frozen_masks(n: int, sample: int, draws: int) -> list[np.ndarray]:
    """The masks that every run is measured on, a function of the sample number (`DrawMasks`)."""
    random = generator(FROZEN_SEED, "validation", sample)
    counts = stratified_counts(n, random.random(draws))
    return [np.sort(random.permutation(n)[:k]) for k in counts]


def stratified_counts(n: int, uniforms: np.ndarray) -> list[int]:
    """One k in each of D equal strata of the uniform law on 1..n, from D uniform numbers."""
    draws = len(uniforms)
    counts = 1 + np.floor(n * (np.arange(draws) + uniforms) / draws).astype(int)
    return np.minimum(counts, n).tolist()


def stratified_variance(drawn: np.ndarray) -> np.ndarray:
    """Estimated variance of the mean of D independent draws, one from each of D strata.

    The draws' own spread would count the differences between the strata, which are not random. So
    a curve over the strata is fitted, and its residuals e are weighted, sum_j w_j e_j² / D², with
    the w for which, whatever the strata's variances v_j and means m (Hartley, Rao and Kiefer 1969),

        E[sum_j w_j e_j²] = sum_j v_j + (a square of what of m lies off the curve).

    Never too small on average, and right where the means lie on the curve: a parabola from eight
    strata on, a line from five, and below that a constant, the draws' own spread.

    Args:
        drawn: float64[S, D], in the order of the strata.

    Returns:
        float64[S], not negative; infinite for a single stratum.
    """
    draws = drawn.shape[1]
    if draws == 1:
        return np.full(len(drawn), np.inf)
    residual, weights = _residual_weights(draws)
    # The form is never negative, though a weight may be; rounding can be.
    return np.maximum((drawn @ residual) ** 2 @ weights / draws**2, 0)


@lru_cache
def _residual_weights(draws: int) -> tuple[np.ndarray, np.ndarray]:
    """P[D, D], which takes the fitted curve away, and w[D] with (P ∘ P) w = 1."""
    # The highest degree for which P diag(w) P exists and has no negative eigenvalue.
    degree = 2 if draws >= 8 else 1 if draws >= 5 else 0
    basis, _ = np.linalg.qr(np.vander(np.linspace(-1, 1, draws), degree + 1))
    residual = np.eye(draws) - basis @ basis.T
    return residual, np.linalg.pinv(residual**2, rcond=1e-9) @ np.ones(draws)


def _plan(
    draw_masks: DrawMasks, lengths: np.ndarray, samples: list[int], exact_up_to: int, draws: int
) -> _Plan:
    row: list[int] = []
    masks: list[np.ndarray] = []
    weight: list[float] = []
    for index, (n, sample) in enumerate(zip(lengths.tolist(), samples, strict=True)):
        if n <= exact_up_to:
            chosen = _all_masks(n)
            weight += [1.0 / (len(mask) * comb(n, len(mask))) for mask in chosen]
        else:
            chosen = draw_masks(n, sample, draws)
            weight += [n / (len(mask) * draws) for mask in chosen]
        masks += chosen
        row += [index] * len(chosen)
    return _Plan(np.array(row, dtype=np.int64), masks, np.array(weight))


def _all_masks(n: int) -> list[np.ndarray]:
    """Every mask but the empty one."""
    bits = [[(code >> bit) & 1 for bit in range(n)] for code in range(1, 2**n)]
    return [np.flatnonzero(chosen) for chosen in bits]
