"""How sure a prediction is: always by the model's own distribution, before any sampling."""

from typing import Literal

import torch
from torch import Tensor

Kind = Literal["probability", "margin", "entropy", "random", "shared_order"]
RANDOM = ("random", "shared_order")
"""Kinds that rank by noise; which noise, `uniforms` knows."""


def confidence(
    kind: Kind,
    logits: Tensor,
    tokens: Tensor,
    normalizer: Tensor,
    order: Tensor | None,
) -> Tensor:
    """What ranks M predictions, [M] in the dtype of the logits; the greatest come first.

    Args:
        kind: `probability` of the token; `margin`, its probability minus that of the most probable
            other token (below 0 where a less probable token was drawn); `entropy`, the negative
            entropy of the distribution; `random` and `shared_order`, the position's place in a
            random order.
        logits: [M, V], the model's (guided) own.
        tokens: int64[M].
        normalizer: [M], the logsumexp of the logits.
        order: [M] uniform numbers, for a random order.
    """
    if kind in RANDOM:
        assert order is not None
        return order.to(logits.dtype)
    if kind == "entropy":
        return -torch.special.entr((logits - normalizer[:, None]).exp_()).sum(-1)
    own = probability(logits, tokens, normalizer)
    if kind == "probability":
        return own
    best = logits.topk(2)
    other = torch.where(best.indices[:, 0] == tokens, best.values[:, 1], best.values[:, 0])
    return own - (other - normalizer).exp()


def probability(logits: Tensor, tokens: Tensor, normalizer: Tensor) -> Tensor:
    """The probability [M] of each token under its logits [M, V] with this logsumexp [M]."""
    return (logits.gather(1, tokens[:, None])[:, 0] - normalizer).exp()
