"""The negative evidence lower bound (NELBO), in nats: the figure that runs are compared by.

    NELBO(x0) = ∫ E_m[ sum_{i masked} CE_i ] / t dt
              = E_{k uniform on 1..n} E_{|m| = k}[ (n/k) sum_{i masked} CE_i ]

with eps = 0 and no weight of the training estimator (LLaDA, arXiv 2502.09992, appendix). Short
responses are summed exactly over all masks; longer ones use frozen random k-subsets, stratified
over k, that are the same for every run.
"""

from dataclasses import dataclass
from math import comb

import numpy as np
import torch
from torch import nn

from raymdm.diffusion.cross_entropy import masked_cross_entropy
from raymdm.diffusion.rows import Rows
from raymdm.randomness import generator

# Not the run's seed: every run is measured on the same masks.
_FROZEN_SEED = 0


@dataclass(frozen=True)
class Nelbo:
    """NELBO of some rows (of a causal model their negative log-likelihood: `likelihood.py`).

    Attributes:
        per_row: float64[B], nats of each response.
        variance: float64[B], variance of `per_row` from the random masks; 0 where exact.
        tokens: int64[B], response tokens.
    """

    per_row: np.ndarray
    variance: np.ndarray
    tokens: np.ndarray


@dataclass(frozen=True)
class _Plan:
    """Masks to evaluate: for each, its row, its positions among the eligible, and its weight."""

    row: np.ndarray
    masks: list[np.ndarray]
    weight: np.ndarray


@torch.no_grad()
def nelbo(
    model: nn.Module,
    mask_token_id: int,
    rows: Rows,
    *,
    exact_up_to: int = 4,
    draws: int = 8,
    batch_size: int = 256,
) -> Nelbo:
    """NELBO of every row; noise depends only on the sample numbers.

    Args:
        model: called as model(input_ids, attention_mask, select=…) -> logits[M, V].
        mask_token_id: the id that replaces masked tokens.
        rows: B rows.
        exact_up_to: responses of at most this many tokens are summed over all 2^n masks.
        draws: masks for each longer response.
        batch_size: rows of one forward; does not change the result beyond rounding.
    """
    lengths = rows.response_lengths.cpu().numpy()
    plan = _plan(lengths, rows.samples, exact_up_to, draws)
    positions = [row.nonzero()[:, 0] for row in rows.eligible]
    values: np.ndarray = np.empty(len(plan.row))
    for start in range(0, len(plan.row), batch_size):
        chunk = torch.from_numpy(plan.row[start : start + batch_size]).to(rows.input_ids.device)
        masked = torch.zeros_like(rows.eligible[chunk])
        for index, row in enumerate(chunk.tolist()):
            masked[index, positions[row][plan.masks[start + index]]] = True
        width = int(rows.attention_mask[chunk].sum(-1).max())
        sums = masked_cross_entropy(
            model,
            rows.input_ids[chunk][:, :width],
            rows.attention_mask[chunk][:, :width],
            masked[:, :width],
            mask_token_id,
        )
        values[start : start + len(chunk)] = sums.double().cpu().numpy()
    weighted = values * plan.weight
    per_row = np.bincount(plan.row, weighted, minlength=len(rows))
    return Nelbo(per_row, _variance(plan.row, weighted, lengths > exact_up_to, draws), lengths)


def _plan(lengths: np.ndarray, samples: list[int], exact_up_to: int, draws: int) -> _Plan:
    row: list[int] = []
    masks: list[np.ndarray] = []
    weight: list[float] = []
    for index, (n, sample) in enumerate(zip(lengths.tolist(), samples, strict=True)):
        if n <= exact_up_to:
            for code in range(1, 2**n):
                chosen = np.flatnonzero([(code >> bit) & 1 for bit in range(n)])
                masks.append(chosen)
                weight.append(1.0 / (len(chosen) * comb(n, len(chosen))))
            row += [index] * (2**n - 1)
            continue
        random = generator(_FROZEN_SEED, "validation", sample)
        # One k in each of `draws` equal strata of the uniform law on 1..n.
        counts = 1 + np.floor(n * (np.arange(draws) + random.random(draws)) / draws).astype(int)
        for k in np.minimum(counts, n).tolist():
            masks.append(np.sort(random.permutation(n)[:k]))
            weight.append(n / (k * draws))
        row += [index] * draws
    return _Plan(np.array(row, dtype=np.int64), masks, np.array(weight))


def _variance(row: np.ndarray, weighted: np.ndarray, sampled: np.ndarray, draws: int) -> np.ndarray:
    """Variance of each row's mean over its draws, as if they were independent (stratification
    makes the true one smaller); infinite for a single draw.
    """
    values: np.ndarray = weighted * draws
    count = np.maximum(np.bincount(row, minlength=len(sampled)), 1)
    mean = np.bincount(row, values, minlength=len(sampled)) / count
    squares = np.bincount(row, (values - mean[row]) ** 2, minlength=len(sampled))
    if draws == 1:
        return np.where(sampled, np.inf, 0.0)
    return np.where(sampled, squares / ((draws - 1) * draws), 0.0)
