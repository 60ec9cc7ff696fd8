"""Rounds on one worker: whose prompts, rolled out now or ahead, judged, and kept on disk."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed

from raymdm.data.encoding import load_encoder
from raymdm.decoding import Trace
from raymdm.policy.steps import whole
from raymdm.reinforcement.actors import ActorRollouts
from raymdm.reinforcement.greedy import Greedy
from raymdm.reinforcement.job import PolicyJob, with_blocks
from raymdm.reinforcement.judging import Judged, judge
from raymdm.reinforcement.kept_rounds import KeptRounds
from raymdm.reinforcement.prompts import IncrementalPrompts, Prompts, PromptStream, block_lengths
from raymdm.reinforcement.reward_tasks import RewardTasks
from raymdm.reinforcement.rollouts import OwnRollouts, Rollouts
from raymdm.reinforcement.rounds import Group, Place
from raymdm.training.seeds import seed_of


@dataclass(frozen=True)
class Made:
    """A worker's groups of a round.

    Attributes:
        groups: by slot.
        epoch: of their prompts.
        judged: of those that were not on disk; None where all were.
        staleness: the most steps that the weights of a group were behind.
        rollout_seconds: until the rollouts were there.
        reward_seconds: until their rewards were.
        listed: prompts that over-denoised when they were last listed; NaN if they never were.
        restarts: lost rollout actors so far.
    """

    groups: list[Group]
    epoch: int
    judged: Judged | None
    staleness: int
    rollout_seconds: float
    reward_seconds: float
    listed: float
    restarts: int


@dataclass(frozen=True)
class _Begun:
    epoch: int
    version: int
    missing: list[Place]
    kept: list[Group]
    on_the_way: bool = True


class RoundMaker:
    """Every rank must call each method together.

    Args:
        job: the run.
        engine: whose weights roll out.
        device: of this worker.
    """

    def __init__(self, job: PolicyJob, engine: Any, device: torch.device) -> None:
        self.job, self.engine, self.policy = job, engine, job.policy
        self.items = job.items()
        self.kept = KeptRounds(job.run, job.start)
        self.prompts = prompts_of(job)
        self.tokenizer = load_encoder(job.data_folder, job.trusts_code).tokenizer
        self.rewards = RewardTasks(
            job.task,
            # Over-denoising is about the task's own score, whatever is rewarded.
            {"correct": 0.0, **self.policy.rewards},
            job.config.imports,
            self.policy.reward_seconds,
            self.policy.reward_tasks,
        )
        self.rollouts = rollouts_of(job)
        self.greedy = Greedy(job, engine, self.rollouts, self.rewards, self.tokenizer, device)
        self.listed = float("nan")
        share = self.policy.prompts_per_step // torch.distributed.get_world_size()
        first = torch.distributed.get_rank() * share
        self.slots = range(first, first + share)
        self._begun: dict[int, _Begun] = {}

    def make(self, step: int) -> Made:
        """The groups of a round, and those of the next ones ordered ahead as far as allowed."""
        started = time.monotonic()
        last = min(step + self.policy.rollouts.staleness, self.job.steps - 1)
        for number in range(step, last + 1):
            if number not in self._begun:
                self._begin(number, weights=step)
        begun = self._begun.pop(step)
        traces = self.rollouts.collect(f"round {step}") if begun.on_the_way else []
        rolled_out = time.monotonic()
        judged, groups = self._complete(step, begun, traces)
        return Made(
            sorted(groups, key=lambda group: group.place.slot),
            begun.epoch,
            judged,
            step - min(group.version for group in groups),
            rolled_out - started,
            time.monotonic() - rolled_out,
            self.listed,
            self.rollouts.restarts,
        )

    def settle(self) -> None:
        """Wait for the rounds that were ordered ahead, and keep them: a run that goes on from here
        has them with the weights that they were ordered with.
        """
        for step, begun in self._begun.items():
            if begun.on_the_way:
                traces = self.rollouts.collect(f"round {step}")
                _, groups = self._complete(step, begun, traces)
                self._begun[step] = _Begun(begun.epoch, begun.version, [], groups, False)

    def _complete(
        self, step: int, begun: "_Begun", traces: Sequence[Trace]
    ) -> tuple[Judged | None, list[Group]]:
        """All groups of a round; those that were not on disk are judged, and are then."""
        if not begun.missing:
            return None, begun.kept
        judged, made = self._judged(begun, traces)
        for group in made:
            self.kept.write(step, group)
        return judged, [*begun.kept, *made]

    def close(self) -> None:
        """End the processes that roll out and judge."""
        self.rollouts.close()
        self.rewards.close()

    def _begin(self, step: int, weights: int) -> None:
        """Order those rollouts of a round that are not on disk."""
        if self.prompts.due(step):
            self._renew(weights)
        chosen = self.prompts.round(step)
        lengths = self._block_lengths(chosen.numbers, chosen.epoch)
        places = [
            Place(slot, self.items[chosen.numbers[slot]], chosen.epoch, lengths[slot])
            for slot in self.slots
        ]
        found = [self.kept.read(step, place) for place in places]
        missing = [place for place, group in zip(places, found, strict=True) if group is None]
        asks = [
            ask
            for place in missing
            for ask in place.asks(self.job.decoding, self.policy.group_size)
        ]
        self.rollouts.begin(f"round {step}", asks, self.engine, weights)
        kept = [group for group in found if group is not None]
        self._begun[step] = _Begun(chosen.epoch, weights, missing, kept)

    def _block_lengths(self, numbers: Sequence[int], epoch: int) -> Sequence[int | None]:
        choices = self.policy.mixture_block_lengths
        if not choices:
            return [None] * len(numbers)
        return block_lengths(numbers, epoch, choices, seed_of(self.job.config, "decode"))

    def _judged(self, begun: _Begun, traces: Sequence[Trace]) -> tuple[Judged, list[Group]]:
        size = self.policy.group_size
        complete = []
        for at, place in enumerate(begun.missing):
            decoding = with_blocks(self.job.decoding, place.block_length)
            complete.append([whole(t, decoding) for t in traces[at * size : (at + 1) * size]])
        items = [place.item for place in begun.missing]
        eos = self.job.shape.eos_token_id
        judged = judge(items, complete, self.rewards, self.tokenizer, eos)
        groups = [
            Group(place, begun.version, part, rewards, correct)
            for place, part, rewards, correct in zip(
                begun.missing, complete, judged.rewards, judged.correct, strict=True
            )
        ]
        return judged, groups

    def _renew(self, weights: int) -> None:
        """The prompts of the next epoch: those that over-denoise with the weights as they are."""
        candidates = [self.items[number] for number in self.job.numbers]
        found = self.greedy.over_denoising(candidates, weights)
        self.prompts.renew(found)
        self.listed = float(len(found))


def prompts_of(job: PolicyJob) -> Prompts:
    """Which prompts the rounds of a run are for."""
    policy, seed = job.policy, seed_of(job.config, "order")
    kind = IncrementalPrompts if policy.incremental_training else PromptStream
    return kind(job.numbers, seed, policy.prompts_per_step)


def rollouts_of(job: PolicyJob) -> Rollouts:
    """Who rolls out."""
    section = job.policy.rollouts
    if section.actors is None:
        return OwnRollouts(section.batch_size)
    return ActorRollouts(job.config, job.shape)
