"""From the rewards of a group's rollouts, step by step, to advantages and the steps to train on.

All of it works within one group: whichever worker holds which groups, the result is the same.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["single", "future", "difference", "difference_and_future"]
Normalisation = Literal["per_step", "group", "mean"]

SMALL = 1e-4
"""Added to the standard deviation (MDPO, GRPO)."""


@dataclass(frozen=True)
class Advantages:
    """Of P groups of G rollouts of S steps.

    Attributes:
        values: float64[P, G, S], zeros in groups that are skipped.
        kept: bool[P], false at groups that are skipped: their rewards are all equal, or their
            advantages are.
    """

    values: Tensor
    kept: Tensor

    @property
    def skipped(self) -> int:
        """How many groups are skipped."""
        return int((~self.kept).sum())


def advantages(rewards: Tensor, kind: Kind, normalisation: Normalisation) -> Advantages:
    """What every step of every rollout was worth, against the others of its group (MDPO, arXiv
    2508.13148, section 4).

    Args:
        rewards: [P, G, S], of the prediction that each step made of the whole response. The final
            responses alone are [P, G, 1].
        kind: see `raw_advantages`.
        normalisation: see `normalised`.
    """
    rewards = rewards.double()
    values = normalised(raw_advantages(rewards, kind), normalisation)
    differ = (rewards != rewards[:, :1, :1]).any(-1).any(-1)
    kept = differ & (values != 0).any(-1).any(-1)
    return Advantages(values.where(kept[:, None, None], 0.0), kept)


def raw_advantages(rewards: Tensor, kind: Kind) -> Tensor:
    """Advantages before any comparison, [..., S], from rewards [..., S] (floating point).

    `single`: R[s]. `future`: the mean of R[j] over j > s, at the last step R[S-1]. `difference`:
    R[s] - R[s-1] with R[-1] = 0. `difference_and_future`: the sum of the last two and 1.
    """
    if kind == "single":
        return rewards
    before = torch.nn.functional.pad(rewards, (1, 0))[..., :-1]
    if kind == "difference":
        return rewards - before
    steps = rewards.shape[-1]
    later = rewards.flip(-1).cumsum(-1).flip(-1)[..., 1:]
    counts = torch.arange(steps - 1, 0, -1, device=rewards.device)
    future = torch.cat([later / counts, rewards[..., -1:]], -1)
    return future if kind == "future" else rewards - before + 1 + future


def normalised(raw: Tensor, normalisation: Normalisation) -> Tensor:
    """Advantages that compare the G rollouts of a group, [P, G, S] from raw ones [P, G, S].

    `per_step`: (A - mean) / (standard deviation + 1e-4) over the rollouts at each step; `group`:
    over all rollouts and steps; `mean`: A - mean over the rollouts at each step. The standard
    deviation is that of a sample, with n - 1. Where all are equal, and so with one rollout under
    `per_step`, every advantage is exactly 0.
    """
    over = (-2, -1) if normalisation == "group" else (-2,)
    # Equal values have a mean that may differ from them in the last digit.
    centred = (raw - raw.mean(over, keepdim=True)).where(_differ(raw, over), 0.0)
    if normalisation == "mean":
        return centred
    count = raw.shape[-2] * (raw.shape[-1] if normalisation == "group" else 1)
    variance = centred.square().sum(over, keepdim=True) / max(count - 1, 1)
    return centred / (variance.sqrt() + SMALL)


def chosen_steps(values: Tensor, trainable: Tensor, count: int) -> Tensor:
    """Which steps of each group to train on, all its rollouts at the same ones: bool[P, S].

    The `count` steps with the greatest mean |A| over the rollouts; of equals the earlier one. A
    step that no rollout can be trained on is not chosen, so there may be fewer.

    Args:
        values: [P, G, S], advantages.
        trainable: bool[P, G, S], steps at which a rollout has positions to train on; the advantages
            of others do not count.
        count: sample_train_steps.
    """
    worth = values.abs().where(trainable, 0.0).sum(-2)
    worth = worth.where(trainable.any(-2), -1.0)
    order = worth.argsort(dim=-1, descending=True, stable=True)[..., :count]
    chosen = torch.zeros_like(worth, dtype=torch.bool).scatter_(-1, order, True)
    return chosen & trainable.any(-2)


def _differ(raw: Tensor, over: tuple[int, ...]) -> Tensor:
    """Whether not all are equal, with the dimensions kept."""
    return raw.amax(over, keepdim=True) != raw.amin(over, keepdim=True)
