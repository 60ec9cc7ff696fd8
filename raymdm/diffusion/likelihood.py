"""The figure that models of either kind are compared by: nats of a response, or a bound on them.

A causal model gives the likelihood itself, -log p(x) = sum over i of -log p(x_i | x_<i); a masked
model gives an upper bound on it, its NELBO.
"""

import numpy as np
import torch
from torch import nn

from raymdm.diffusion.cross_entropy import cross_entropy_sums
from raymdm.diffusion.nelbo import Nelbo, nelbo
from raymdm.diffusion.rows import Rows


@torch.no_grad()
def autoregressive_nll(model: nn.Module, rows: Rows, *, batch_size: int = 256) -> Nelbo:
    """The exact negative log-likelihood of every response given its prompt; variance 0.

    Args:
        model: causal, called as model(input_ids, attention_mask, select=bool[B, L]) -> logits[M, V]
            of the selected tokens, each predicted from the ones before it.
        rows: B rows.
        batch_size: rows of one forward; does not change the result beyond rounding.
    """
    per_row: np.ndarray = np.empty(len(rows))
    for start in range(0, len(rows), batch_size):
        part = rows.slice(start, start + batch_size)
        ids = part.input_ids
        sums = cross_entropy_sums(model, ids, part.attention_mask, ids, part.eligible)
        per_row[start : start + len(part)] = sums.double().cpu().numpy()
    return Nelbo(per_row, np.zeros_like(per_row), rows.response_lengths.cpu().numpy())


def bound(
    model: nn.Module,
    mask_token_id: int,
    rows: Rows,
    *,
    causal: bool,
    exact_up_to: int = 4,
    draws: int = 8,
    batch_size: int = 256,
) -> Nelbo:
    """Upper bound on every response's negative log-likelihood: exact where the model is causal.

    Args:
        model: as for `nelbo`, or where it is causal as for `autoregressive_nll`.
        mask_token_id: the id that replaces masked tokens (masked models).
        rows: B rows.
        causal: which of the two the model is.
        exact_up_to: as for `nelbo` (masked models).
        draws: as for `nelbo` (masked models).
        batch_size: rows of one forward.
    """
    if causal:
        return autoregressive_nll(model, rows, batch_size=batch_size)
    return nelbo(
        model, mask_token_id, rows, exact_up_to=exact_up_to, draws=draws, batch_size=batch_size
    )
