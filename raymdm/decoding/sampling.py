"""Tokens from logits: the most probable, or one drawn at a temperature, from all or the best."""

import math

import torch
from torch import Tensor

from raymdm.config.decoding import DecodingSection
from raymdm.decoding.noise import gumbel


def draw(logits: Tensor, settings: DecodingSection, uniform: Tensor | None) -> Tensor:
    """A token for each of M positions, int64[M].

    Args:
        logits: [M, V]; -inf at what must not be drawn.
        settings: temperature, sampling, top_p and top_k.
        uniform: float64[M] in [0, 1), each position's own number; not needed at temperature 0.
    """
    if settings.temperature == 0:
        return logits.argmax(-1)
    assert uniform is not None
    logits = logits / settings.temperature
    if settings.top_p is not None or settings.top_k is not None:
        floor = lowest_drawn(logits, settings.top_p, settings.top_k)
        logits = logits.masked_fill_(logits < floor[:, None], -torch.inf)
    if settings.sampling == "gumbel":
        return logits.add_(gumbel(uniform, logits.shape[1])).argmax(-1)
    weights = logits.sub_(logits.amax(-1, keepdim=True)).exp_()
    return inverse_cdf(weights, uniform)


def log_probability(logits: Tensor, tokens: Tensor, settings: DecodingSection) -> Tensor:
    """The log-probability of each token under the distribution that `draw` draws it from, [M].

    Differentiable by the logits. For a token that top-p or top-k leave out the cut is lowered just
    so far that it is in: other weights drew it once, and a ratio to a probability of 0 would have
    neither a value nor a gradient. The division by the temperature is plain, without any small
    number beside it, in the dtype of the logits.

    Args:
        logits: [M, V], at least float32; -inf at what must not be drawn.
        tokens: int64[M].
        settings: temperature (above 0), top_p and top_k.
    """
    logits = logits / settings.temperature
    own = logits.gather(1, tokens[:, None])[:, 0]
    if settings.top_p is not None or settings.top_k is not None:
        floor = lowest_drawn(logits.detach(), settings.top_p, settings.top_k)
        floor = torch.minimum(floor, own.detach())
        logits = logits.masked_fill(logits < floor[:, None], -torch.inf)
    return own - logits.logsumexp(-1)


def lowest_drawn(logits: Tensor, top_p: float | None, top_k: int | None) -> Tensor:
    """The logit [M] that a token needs to be drawn: of the last of the `top_k` most probable tokens
    and of the fewest that together have probability `top_p`; equal logits are treated alike.
    """
    floor = logits.new_full(logits.shape[:1], -torch.inf)
    if top_k is not None and top_k < logits.shape[1]:
        floor = logits.topk(top_k).values[:, -1]
    if top_p is not None:
        falling = logits.sort(descending=True).values
        probability = falling.softmax(-1)
        before = probability.cumsum(-1) - probability
        last = (before < top_p).sum(-1, keepdim=True) - 1
        floor = torch.maximum(floor, falling.gather(1, last)[:, 0])
    return floor


def inverse_cdf(weights: Tensor, uniform: Tensor) -> Tensor:
    """The first token at which the cumulative weight exceeds a share of its total, int64[M].

    In two levels, first among some √V groups of tokens and then inside the group: only the two
    short sums are cumulative, in float64. One over the whole vocabulary would take longer and, in
    float32, lose every late token of less than 6e-8.

    Args:
        weights: [M, V], not negative, some positive in every row.
        uniform: float64[M] in [0, 1).
    """
    positions, tokens = weights.shape
    width = math.isqrt(tokens - 1) + 1
    weights = torch.nn.functional.pad(weights, (0, -tokens % width))
    groups = weights.view(positions, -1, width)
    group, share = _first_beyond(groups.sum(-1), uniform)
    token, _ = _first_beyond(groups[torch.arange(positions, device=group.device), group], share)
    return group * width + token


def _first_beyond(weights: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Where the cumulative weight exceeds a share of the total, never at weight 0; and which share
    of that place's own weight is used up.
    """
    weights = weights.double()
    ends = weights.cumsum(-1)
    target = share * ends[:, -1]
    last = (ends < ends[:, -1:]).sum(-1)  # the last place of any weight, should rounding go beyond
    place = torch.minimum((ends <= target[:, None]).sum(-1), last)[:, None]
    own = weights.gather(1, place)[:, 0]
    used = (target - (ends.gather(1, place)[:, 0] - own)) / own
    return place[:, 0], used.clamp(0.0, 1.0)
