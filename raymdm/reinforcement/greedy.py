"""Prompts decoded as `evaluation.decoding` says with the weights of the moment: how good the policy
is on held-out prompts, and which training prompts it over-denoises.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed

from raymdm.data.evaluation import Item
from raymdm.reinforcement.job import PolicyJob
from raymdm.reinforcement.judging import Judged, judge
from raymdm.reinforcement.reward_tasks import RewardTasks
from raymdm.reinforcement.rollouts import Ask, Rollouts
from raymdm.training.engine import global_sum


@dataclass(frozen=True)
class Greedy:
    """Every rank must call each method together, with the same items: each takes its share.

    Attributes:
        job: the run.
        engine: whose weights decode.
        rollouts: who decodes.
        rewards: who judges.
        tokenizer: of the model.
    """

    job: PolicyJob
    engine: Any
    rollouts: Rollouts
    rewards: RewardTasks
    tokenizer: Any

    def mean_reward(self, items: Sequence[Item], weights: int) -> float:
        """Of the responses to items, NaN without any.

        Args:
            items: held-out prompts.
            weights: their version, as `Rollouts` counts them.
        """
        if not items:
            return float("nan")
        judged = self._judged(_share(items), weights, "held out")
        total = sum(float(rewards[0, -1]) for rewards in judged.rewards)
        device = next(self.engine.module.parameters()).device
        return global_sum(total, device=device)[0] / len(items)

    def over_denoising(self, items: Sequence[Item], weights: int) -> list[int]:
        """Numbers of the items that are right at some step and wrong at the end, in order."""
        own = _share(items)
        judged = self._judged(own, weights, "over-denoising")
        found = [
            item.number
            for item, right in zip(own, judged.correct, strict=True)
            if (right >= 1).any() and right[0, -1] < 1
        ]
        gathered: list[list[int]] = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(gathered, found)
        return sorted(number for part in gathered for number in part)

    def _judged(self, items: Sequence[Item], weights: int, key: str) -> Judged:
        settings = self.job.config.evaluation.decoding
        asks = [Ask(item.prompt, item.number, 0, settings) for item in items]
        self.rollouts.begin(key, asks, self.engine, weights)
        traces = [[trace] for trace in self.rollouts.collect(key)]
        eos = self.job.shape.eos_token_id
        return judge(items, traces, self.rewards, self.tokenizer, eos)


def _share(items: Sequence[Item]) -> Sequence[Item]:
    return items[torch.distributed.get_rank() :: torch.distributed.get_world_size()]
