"""Prompts decoded as `evaluation.decoding` says with the weights of the moment: how good the policy
is on held-out prompts, and which training prompts it over-denoises.
"""

from collections.abc import Iterator, Sequence
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
from raymdm.verdict.items import over_denoised

_AT_ONCE = 1024


@dataclass(frozen=True)
class Greedy:
    """Every rank must call each method together, with the same items: each takes its share.

    Attributes:
        job: the run.
        engine: whose weights decode.
        rollouts: who decodes.
        rewards: who judges.
        tokenizer: of the model.
        device: of this worker.
    """

    job: PolicyJob
    engine: Any
    rollouts: Rollouts
    rewards: RewardTasks
    tokenizer: Any
    device: torch.device

    def mean_reward(self, items: Sequence[Item], weights: int) -> float:
        """Of the responses to items, NaN without any.

        Args:
            items: held-out prompts.
            weights: their version, as `Rollouts` counts them.
        """
        if not items:
            return float("nan")
        total = 0.0
        for chunk in _chunks(items):
            judged = self._judged(_share(chunk), weights, last=True)
            total += sum(float(rewards[0, -1]) for rewards in judged.rewards)
        return global_sum(total, device=self.device)[0] / len(items)

    def over_denoising(self, items: Sequence[Item], weights: int) -> list[int]:
        """Numbers of the items that are right at some step and wrong at the end, in order."""
        found: list[int] = []
        for chunk in _chunks(items):
            own = _share(chunk)
            judged = self._judged(own, weights, last=False)
            found += [
                item.number
                for item, right in zip(own, judged.correct, strict=True)
                if over_denoised((right[0] >= 1).tolist())
            ]
        gathered: list[list[int]] = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(gathered, found)
        return sorted(number for part in gathered for number in part)

    def _judged(self, items: Sequence[Item], weights: int, *, last: bool) -> Judged:
        """The rewards of every step, or of the last one only."""
        settings = self.job.config.evaluation.decoding
        asks = [Ask(item.prompt, item.number, 0, settings) for item in items]
        self.rollouts.begin("greedy", asks, self.engine, weights)
        traces = self.rollouts.collect("greedy")
        if last:
            traces = [trace.only(len(trace.states) - 1) for trace in traces]
        eos = self.job.shape.eos_token_id
        return judge(items, [[trace] for trace in traces], self.rewards, self.tokenizer, eos)


def _chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """So many at a time that their traces can be held."""
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]


def _share(items: Sequence[Item]) -> Sequence[Item]:
    return items[torch.distributed.get_rank() :: torch.distributed.get_world_size()]
