"""Greedy left-to-right decoding of a causal model, one token a step, until all rows have an EOS."""

from collections.abc import Sequence

import torch
from torch import Tensor

from raymdm.config.decoding import DecodingSection
from raymdm.decoding.schedule import fixed_length
from raymdm.errors import ConfigurationError
from raymdm.models import Backbone


def left_to_right(
    model: Backbone, prompts: Sequence[Sequence[int]], settings: DecodingSection
) -> list[Tensor]:
    """The responses after each step, int64[B, response_length]; unwritten tokens are masks.

    Rows are padded on the right, so that each writes at a position of its own. A row that has
    written EOS is filled up with EOS and takes part in no further forward; the last state has no
    masks left.

    Args:
        model: a causal backbone; its shape names the EOS, mask and padding tokens.
        prompts: B rows of token ids.
        settings: the response length.

    Raises:
        ConfigurationError: settings of a masked model's decoding.
    """
    check_left_to_right(settings)
    length, shape = fixed_length(settings), model.shape
    device = next(model.parameters()).device
    starts = torch.tensor([len(prompt) for prompt in prompts], device=device)
    columns = torch.arange(int(starts.max()) + length, device=device)
    ids = torch.full((len(prompts), len(columns)), shape.pad_token_id, device=device)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt, dtype=ids.dtype, device=device)

    responses = torch.full((len(prompts), length), shape.mask_token_id, device=device)
    writing = torch.arange(len(prompts), device=device)
    states: list[Tensor] = []
    for step in range(length):
        ends = starts[writing] + step
        width = int(ends.max()) + 1
        visible = columns[:width] < ends[:, None]
        next_token = columns[:width] == ends[:, None]
        logits = model(ids[writing, :width], visible, select=next_token)
        logits[:, shape.mask_token_id] = -torch.inf
        token = logits.argmax(-1)
        ids[writing, ends] = token
        responses[writing, step] = token
        ended = token == shape.eos_token_id
        responses[writing[ended], step:] = shape.eos_token_id
        states.append(responses.clone())
        writing = writing[~ended]
        if not len(writing):
            break
    return states


def check_left_to_right(settings: DecodingSection) -> None:
    """Raises ConfigurationError for a length that is missing or a setting that means nothing."""
    fixed_length(settings)
    for name in ("steps", "block_length"):
        if getattr(settings, name) is not None:
            raise ConfigurationError(
                f"evaluation.decoding.{name} means nothing for a causal model, which writes one "
                f"token a step from left to right; set evaluation.decoding.{name} to null"
            )
