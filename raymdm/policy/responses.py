"""The baselines' rows: final responses, scored on texts that rollouts never read.

diffu-GRPO (d1, arXiv 2504.12216) masks the whole response and takes one pass. coupled-GRPO
(DiffuCoder, arXiv 2506.20639) takes the mean of that and of a pair of complementary masks, the
log-probability in the one that hides the token divided by that mask's ratio, as its code does.

Neither is the distribution that the response was drawn from, so that there is no behaviour in a
trace: score the rows before the first update and hand that to `with_behaviour`. d1 draws other
masks for every pass over the same rollouts, and so does `iteration`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from raymdm.config.policy import PolicySection
from raymdm.models import ModelShape
from raymdm.policy.rows import PolicyRows, Rollout, aligned, behind, up_to_eos
from raymdm.randomness import generator


def rows_of_responses(
    rollouts: Sequence[Rollout],
    advantages: Sequence[float] | Tensor,
    section: PolicySection,
    shape: ModelShape,
    *,
    seed: int,
    iteration: int,
) -> PolicyRows:
    """The rows of R final responses under `diffu_grpo` (one view) or `coupled_grpo` (three).

    Args:
        rollouts: R; of their traces the last state is read.
        advantages: R, of the final rewards.
        section: loss, after_eos, prompt_masking and mask_ratios.
        shape: names the mask, EOS and padding tokens.
        seed: of the masks (stream `mask`).
        iteration: passes over rollouts so far in the run; with a rollout's number and place among
            its prompt's it is the address of the masks.

    Raises:
        ValueError: another loss.
    """
    if section.loss not in ("diffu_grpo", "coupled_grpo"):
        raise ValueError(f"policy.loss {section.loss} does not score final responses")
    mask = shape.mask_token_id
    views, coefficients, targets, response, counted = [], [], [], [], []
    for rollout in rollouts:
        prompt, final = rollout.prompt, rollout.trace.states[-1]
        noise = generator(seed, "mask", iteration, rollout.number, rollout.rollout)
        given = torch.as_tensor(prompt, dtype=torch.int64)
        text = torch.cat([given, final])
        place = behind(prompt, torch.ones_like(final, dtype=torch.bool))
        trained = torch.ones_like(final, dtype=torch.bool)
        if not section.after_eos:
            trained = up_to_eos(final, shape.eos_token_id)
        trained = behind(prompt, trained)
        if section.loss == "diffu_grpo":
            hidden = torch.from_numpy(noise.random(len(text)) < section.prompt_masking)
            views.append([text.masked_fill(place | hidden, mask)])
            coefficients.append([trained.float()])
        else:
            pairs = _pair(noise, place, section.mask_ratios)
            views.append([text.masked_fill(hides, mask) for hides, _ in pairs])
            coefficients.append([(trained & hides) * part for hides, part in pairs])
        targets.append(text)
        response.append(place)
        counted.append(trained)
    return PolicyRows(
        shown=_stacked(views, shape.pad_token_id),
        coefficients=_stacked(coefficients, 0).float(),
        attention=aligned([torch.ones_like(row, dtype=torch.bool) for row in targets], False),
        response=aligned(response, False),
        targets=aligned(targets, shape.pad_token_id),
        counted=aligned(counted, False),
        weights=aligned(counted, False).float(),
        scale=torch.ones(len(targets)),
        advantages=torch.as_tensor(advantages, dtype=torch.float32),
    )


def _pair(
    noise: np.random.Generator, place: Tensor, ratios: Sequence[float]
) -> list[tuple[Tensor, float]]:
    """What each of the three views hides, bool[length], and the coefficient of what it predicts:
    everything, half; then with a uniform ratio r one part, 1 / (2r), and the rest, 1 / (2 - 2r).
    """
    low, high = ratios
    ratio = low + (high - low) * float(noise.random())
    first = torch.from_numpy(noise.random(len(place)) < ratio)
    return [
        (place, 0.5),
        (place & first, 0.5 / ratio),
        (place & ~first, 0.5 / (1 - ratio)),
    ]


def _stacked(rows: Sequence[Sequence[Tensor]], fill: int) -> Tensor:
    """R rows of V tensors [length], padded on the left: [V, R, longest]."""
    return torch.stack([aligned(view, fill) for view in zip(*rows, strict=True)])
