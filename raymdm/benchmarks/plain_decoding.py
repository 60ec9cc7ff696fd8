"""LLaDA's decoding loop (arXiv 2502.09992), written out as one would without raymdm.

Every step computes the logits of all positions, prompt and padding included, draws for all of them,
and takes the softmax of all; noise is float64, as many numbers as there are logits.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from raymdm.models import Backbone


@torch.no_grad()
def plain_decoding(
    model: Backbone,
    prompts: Sequence[Sequence[int]],
    *,
    response_length: int,
    block_length: int,
    steps: int,
    temperature: float = 0.0,
) -> list[list[int]]:
    """Responses to one batch of prompts, padded on the left.

    Args:
        model: a masked backbone.
        prompts: B rows of token ids.
        response_length: tokens of each response, a multiple of block_length.
        block_length: tokens of a block.
        steps: of all blocks together; they share it equally.
        temperature: of the noise; 0 is none.
    """
    shape, device = model.shape, next(model.parameters()).device
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest + response_length), shape.pad_token_id, device=device)
    ids[:, longest:] = shape.mask_token_id
    real = torch.ones_like(ids, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) : longest] = torch.tensor(prompt, device=device)
        real[row, : longest - len(prompt)] = False
    blocks = response_length // block_length
    for block in range(blocks):
        end = longest + (block + 1) * block_length
        each, rest = divmod(block_length, steps // blocks)
        for step in range(steps // blocks):
            masked = ids == shape.mask_token_id
            logits = model(ids, real)
            probabilities = logits.float().softmax(-1)
            logits[..., shape.mask_token_id] = -torch.inf  # a random model would write it
            tokens = _noisy(logits, temperature).argmax(-1)
            confidence = probabilities.gather(-1, tokens[..., None])[..., 0]
            confidence[:, end:] = -torch.inf
            confidence = confidence.masked_fill(~masked, -torch.inf)
            for row in range(len(ids)):
                chosen = confidence[row].topk(each + (step < rest)).indices
                ids[row, chosen] = tokens[row, chosen]
    return ids[:, longest:].tolist()


def _noisy(logits: Tensor, temperature: float) -> Tensor:
    """exp(logits) / (-log u)^temperature: its largest is a draw at this temperature."""
    if temperature == 0:
        return logits
    uniform = torch.rand_like(logits, dtype=torch.float64)
    return logits.double().exp() / (-uniform.log()) ** temperature
