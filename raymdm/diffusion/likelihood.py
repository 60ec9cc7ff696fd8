"""The figure that models of either kind are compared by: nats of a response, or a bound on them.

A causal model gives the likelihood itself, -log p(x) = sum over i of -log p(x_i | x_<i); a masked
model gives an upper bound on it, its NELBO.
"""

import numpy as np
import torch
from torch import nn

from raymdm.diffusion.cross_entropy import cross_entropy_sums
from raymdm.diffusion.nelbo import FROZEN_SEED, Nelbo, nelbo, nelbo_under, stratified_counts
from raymdm.diffusion.rows import Rows
from raymdm.randomness import generator


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


def choice_nats(
    model: nn.Module,
    mask_token_id: int,
    rows: Rows,
    *,
    causal: bool,
    exact_up_to: int = 4,
    draws: int = 8,
    batch_size: int = 256,
    guidance: float = 0.0,
) -> Nelbo:
    """Nats of given continuations, to choose among: the rows of an item share a sample number.

    As `bound`, but the choices of an item are measured under common random numbers
    (`shared_masks`), so that the noise of what they have in common does not count in their
    difference. `Nelbo.per_token` is the variant that does not favour short choices.

    Args:
        model: as for `bound`.
        mask_token_id: the id that replaces masked tokens (masked models).
        rows: B choices, each a prompt and a continuation (the eligible tokens); choices of one item
            have its number in `samples`.
        causal: which kind the model is.
        exact_up_to: continuations of at most so many tokens are summed over all masks.
        draws: masks for each longer one.
        batch_size: rows of one forward; the result does not depend on what else is in the batch.
        guidance: w of classifier-free guidance (masked models).
    """
    if causal:
        return autoregressive_nll(model, rows, batch_size=batch_size)
    return nelbo_under(
        shared_masks,
        model,
        mask_token_id,
        rows,
        exact_up_to=exact_up_to,
        draws=draws,
        batch_size=batch_size,
        guidance=guidance,
    )


def shared_masks(n: int, sample: int, draws: int) -> list[np.ndarray]:
    """Masks of a continuation that are comparable over lengths n, by sample number.

    A draw has one number for its share of masked tokens and one for every position; the positions
    with the least are masked. Choices of equal length have equal masks, and of two lengths the
    shorter has those of the longer's beginning, as far as the counts allow.
    """
    uniforms = np.stack(
        [generator(FROZEN_SEED, "validation", sample, 1 + d).random(1 + n) for d in range(draws)]
    )
    counts = stratified_counts(n, uniforms[:, 0])
    order = uniforms[:, 1:].argsort(-1)
    return [np.sort(chosen[:k]) for chosen, k in zip(order, counts, strict=True)]


def perplexity_bound(nelbo_per_token: float, standard_error: float) -> tuple[float, float]:
    """Upper bound on the perplexity per token, exp(NELBO per token), and its standard error.

    Args:
        nelbo_per_token: nats; of a causal model the exact figure, and then so is the perplexity.
        standard_error: of it, nats.

    Returns:
        The bound, and exp(NELBO) times the standard error (delta method). For an interval take exp
        of the interval of the nats: it stays above 0.
    """
    with np.errstate(over="ignore"):
        value = float(np.exp(nelbo_per_token))
    # An exact figure has no error, even one so large that its exponential is infinite.
    return value, value * standard_error if standard_error else 0.0
