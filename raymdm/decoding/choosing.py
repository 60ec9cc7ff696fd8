"""Which predictions are revealed, and which revealed tokens are masked again. [B, N] throughout."""

from typing import Literal

import torch
from torch import Tensor


def first_places(ranked: Tensor, counts: Tensor, last: Tensor | None = None) -> Tensor:
    """The `counts` best slots of every row, bool[B, N]; equals from the left.

    Args:
        ranked: [B, N], the greatest come first; -inf where there is nothing to choose.
        counts: int64[B], at most as many as there are to choose.
        last: bool[B, N], slots that come after all others.
    """
    order = ranked.argsort(dim=-1, descending=True, stable=True)
    if last is not None:
        # Nothing to choose comes last of all.
        group = last.long() + 2 * (ranked == -torch.inf)
        order = order.gather(1, group.gather(1, order).argsort(dim=-1, stable=True))
    chosen = torch.arange(ranked.shape[1], device=ranked.device) < counts[:, None]
    return torch.zeros_like(chosen).scatter_(1, order, chosen)


def confident_enough(
    confidence: Tensor, candidates: Tensor, threshold: float, last: Tensor | None = None
) -> Tensor:
    """How many candidates of every row reach the threshold, at least one of them: int64[B].

    Slots that are to come `last` do not count while there are other candidates.
    """
    reached = candidates & (confidence >= threshold)
    if last is not None:
        reached &= ~last | ~(candidates & ~last).any(-1, keepdim=True)
    return torch.maximum(reached.sum(-1), candidates.any(-1).long())


def updated(
    running: Tensor, confidence: Tensor, decoded: Tensor, rule: Literal["running_max", "last"]
) -> Tensor:
    """The confidence that each slot keeps once some are decoded (RCR, arXiv 2508.13148).

    Args:
        running: [B, N], what they kept so far.
        confidence: [B, N], of what was decoded in this step.
        decoded: bool[B, N].
        rule: `running_max`, the greatest that a slot has had (the paper's); `last`, that of its
            last prediction (the published code's).
    """
    if rule == "running_max":
        confidence = torch.maximum(running, confidence)
    return torch.where(decoded, confidence, running)


def masked_again(
    running: Tensor, eligible: Tensor, counts: Tensor, last: Tensor | None = None
) -> Tensor:
    """The `counts` least confident eligible slots of every row, bool[B, N]; equals from the right,
    so that of equals the leftmost stand first.

    Args:
        running: [B, N], the confidence that each slot keeps.
        eligible: bool[B, N]: revealed slots of the response, up to the end of the block.
        counts: int64[B].
        last: bool[B, N], slots that are masked before all others.
    """
    ranked = running.masked_fill(~eligible, -torch.inf)
    stay = first_places(ranked, eligible.sum(-1) - counts, last)
    return eligible & ~stay
