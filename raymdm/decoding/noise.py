"""The noise of decoding: a pure function of seed, prompt number, rollout, step and position.

A row's numbers never depend on the rows beside it, on padding, or on which positions are predicted.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from raymdm.randomness import generator


def uniforms(
    seed: int,
    numbers: Sequence[int],
    rollouts: Sequence[int],
    steps: Sequence[int],
    lengths: Sequence[int],
    *,
    shared_order: bool = False,
) -> np.ndarray:
    """Two uniform numbers in [0, 1) for every position of B rows: one for its token, one for its
    place in a random order.

    Args:
        seed: of decoding.
        numbers: B addresses of prompts.
        rollouts: B, which of its prompt's responses each is.
        steps: B numbers of steps, counted from 0 within the row's own response.
        lengths: B numbers of positions.
        shared_order: all responses to a prompt have the order of the first one.

    Returns:
        float64[2, B, longest], zeros beyond a row's length.
    """
    noise = np.zeros((2, len(numbers), max(lengths)))
    rows = zip(numbers, rollouts, steps, lengths, strict=True)
    for row, (number, rollout, step, length) in enumerate(rows):
        noise[:, row, :length] = _of(seed, number, rollout, step, length)
        if shared_order and rollout:
            noise[1, row, :length] = _of(seed, number, 0, step, length)[1]
    return noise


def _of(seed: int, number: int, rollout: int, step: int, length: int) -> np.ndarray:
    return generator(seed, "decode", number, rollout, step).random((2, length))


def gumbel(uniform: Tensor, tokens: int) -> Tensor:
    """Standard Gumbel noise for every token of a position, from one uniform number of it.

    The position's number is the seed of a SplitMix64 stream (Steele et al. 2014) with one state per
    token: whole tensors at a time, on any device the same bits, and nothing to carry along. Made
    and kept in float32, from all 63 bits, so that the rare large values are there too.

    Args:
        uniform: float64[M] in [0, 1).
        tokens: V.

    Returns:
        float32[M, V].
    """
    seeds = (uniform * 2**53).long()[:, None]
    states = seeds * _signed(0xD1342543DE82EF95) + torch.arange(
        1, tokens + 1, device=uniform.device
    ) * _signed(0x9E3779B97F4A7C15)
    bits = states.bitwise_xor_(_shifted(states, 30)).mul_(_signed(0xBF58476D1CE4E5B9))
    bits = bits.bitwise_xor_(_shifted(bits, 27)).mul_(_signed(0x94D049BB133111EB))
    # The last xor of SplitMix64 mends the low bits, which have no weight here.
    share = bits.bitwise_and_(2**63 - 1).float().add_(0.5).mul_(2.0**-63).clamp_(max=1 - 2.0**-24)
    return share.neg_().log1p_().neg_().log_().neg_()


def _signed(word: int) -> int:
    """An unsigned 64-bit constant as torch's int64, whose products wrap around alike."""
    return word - 2**64 if word >= 2**63 else word


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Logical shift to the right; torch's own carries the sign along."""
    return (bits >> by).bitwise_and_(2 ** (64 - by) - 1)
