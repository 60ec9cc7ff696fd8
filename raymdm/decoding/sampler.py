"""Greedy decoding: of a masked model most confident tokens first, of a causal one left to right.

A masked model writes its response in blocks from left to right. At each step every masked position
of the current block is predicted; the positions whose predicted token has the highest probability
are revealed, as many as the schedule says, and stay (LLaDA, arXiv 2502.09992, "low-confidence
remasking"). Equal confidences go to the leftmost position. Causal models: `left_to_right`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, overload

import torch
from torch import Tensor

from raymdm.config.decoding import DecodingSection
from raymdm.decoding.left_to_right import check_left_to_right, left_to_right
from raymdm.decoding.schedule import block_schedules
from raymdm.models import Backbone


@dataclass
class Trace:
    """The responses right after each step: int64[B, response_length], masks included."""

    responses: list[Tensor] = field(default_factory=list)


@overload
def generate(
    model: Backbone,
    prompts: Sequence[Sequence[int]],
    settings: DecodingSection,
    trace: Literal[False] = False,
) -> list[list[int]]: ...
@overload
def generate(
    model: Backbone,
    prompts: Sequence[Sequence[int]],
    settings: DecodingSection,
    trace: Literal[True],
) -> tuple[list[list[int]], Trace]: ...


@torch.no_grad()
def generate(
    model: Backbone,
    prompts: Sequence[Sequence[int]],
    settings: DecodingSection,
    trace: bool = False,
) -> list[list[int]] | tuple[list[list[int]], Trace]:
    """Responses to a batch of prompts of any lengths.

    Args:
        model: the backbone; its shape says whether it is causal and names the special tokens.
        prompts: B rows of token ids.
        settings: response length, and for a masked model block length and steps.
        trace: return the state after every step too.

    Returns:
        B rows of exactly `response_length` token ids (cut them at the first EOS yourself), never
        the mask token; with `trace`, and the trace.

    Raises:
        ConfigurationError: settings that this kind of model cannot be decoded with.
    """
    states = (left_to_right if model.shape.causal else low_confidence)(model, prompts, settings)
    responses = states[-1].tolist()
    return (responses, Trace(states)) if trace else responses


def check_decoding(settings: DecodingSection, *, causal: bool) -> None:
    """Raises ConfigurationError where models of this kind cannot be decoded with these settings."""
    if causal:
        check_left_to_right(settings)
    else:
        block_schedules(settings)


def low_confidence(
    model: Backbone, prompts: Sequence[Sequence[int]], settings: DecodingSection
) -> list[Tensor]:
    """The responses of a masked model after each step, int64[B, response_length].

    Prompts are padded on the left and their padding is hidden from attention.
    """
    shape = model.shape
    device = next(model.parameters()).device
    longest = max(len(prompt) for prompt in prompts)
    schedules = block_schedules(settings)
    length = longest + sum(map(sum, schedules))
    ids = torch.full((len(prompts), length), shape.pad_token_id, device=device)
    attention = torch.zeros(len(prompts), length, dtype=torch.bool, device=device)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) : longest] = torch.tensor(prompt, device=device)
        attention[row, longest - len(prompt) :] = True
    ids[:, longest:] = shape.mask_token_id

    states = []
    start = longest
    for schedule in schedules:
        block = slice(start, start + sum(schedule))
        for count in schedule:
            if count:
                reveal(model, ids, attention, block, count)
            states.append(ids[:, longest:].clone())
        start = block.stop
    return states


def reveal(model: Backbone, ids: Tensor, attention: Tensor, block: slice, count: int) -> None:
    """One denoising step: write the `count` most confident masked tokens of a block into `ids`.

    Args:
        model: the backbone.
        ids: int64[B, L], changed in place.
        attention: bool[B, L].
        block: columns that may be written.
        count: tokens to write in every row; each row must have that many masked in the block.
    """
    mask_token_id = model.shape.mask_token_id
    masked = torch.zeros_like(attention)
    masked[:, block] = ids[:, block] == mask_token_id
    logits = model(ids, attention, select=masked).float()
    logits[:, mask_token_id] = -torch.inf
    probability, token = logits.softmax(-1).max(-1)
    confidence = torch.full(ids.shape, -torch.inf, device=ids.device)
    confidence[masked] = probability
    predicted = ids.clone()
    predicted[masked] = token
    chosen = confidence.argsort(dim=-1, descending=True, stable=True)[:, :count]
    ids.scatter_(1, chosen, predicted.gather(1, chosen))
