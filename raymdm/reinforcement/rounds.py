"""A round: groups of rollouts of its prompts, with the rewards of all their steps, into rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raymdm.config.policy import PolicySection, RolloutDecodingSection
from raymdm.data.evaluation import Item
from raymdm.decoding import Trace
from raymdm.decoding.text import response_text
from raymdm.models import ModelShape
from raymdm.policy.advantages import advantages, chosen_steps
from raymdm.policy.responses import rows_of_responses
from raymdm.policy.rows import PolicyRows, Rollout
from raymdm.policy.steps import rows_of_steps, trainable_steps
from raymdm.reinforcement.job import with_blocks
from raymdm.reinforcement.rollouts import Ask
from raymdm.reinforcement.samples import Sample
from raymdm.tasks import TaskSpec
from raymdm.verdict.items import over_denoised


@dataclass(frozen=True)
class Place:
    """A group before it is rolled out.

    Attributes:
        slot: place among the prompts of the round, over all workers.
        item: the prompt and its reference.
        epoch: of the prompt; its rollouts in another one have other noise.
        block_length: drawn for the group; None where the settings say it.
    """

    slot: int
    item: Item
    epoch: int
    block_length: int | None

    def asks(self, decoding: RolloutDecodingSection, size: int) -> list[Ask]:
        """Its rollouts."""
        settings, number = with_blocks(decoding, self.block_length), self.item.number
        first = self.epoch * size
        return [Ask(self.item.prompt, number, first + at, settings) for at in range(size)]


@dataclass(frozen=True)
class Group:
    """A prompt's G rollouts of S steps, and what they were worth.

    Attributes:
        place: whose they are.
        version: updates that their weights had seen, in steps of the run.
        traces: with all steps of their plan.
        rewards: float64[G, S], of the text that each step predicted.
        correct: float64[G, S] likewise, the task's own score.
    """

    place: Place
    version: int
    traces: list[Trace]
    rewards: Tensor
    correct: Tensor

    @property
    def over_denoised(self) -> Tensor:
        """bool[G]: right at some step and wrong at the end."""
        return torch.tensor([over_denoised(steps) for steps in (self.correct >= 1).tolist()])

    def rollout(self, number: int, size: int) -> Rollout:
        """One of them, as rows are made of it."""
        item = self.place.item
        return Rollout(
            item.prompt, self.traces[number], item.number, self.place.epoch * size + number
        )

    def sample(
        self, number: int, size: int, tokenizer: Any, task: TaskSpec, eos_token_id: int
    ) -> Sample:
        """One of them, as a page shows it."""
        item = self.place.item
        gold = response_text(tokenizer, item.input_ids[len(item.prompt) :], eos_token_id)
        return Sample(
            self.rollout(number, size),
            item.id,
            task.extract(gold) or gold,
            self.rewards[number].tolist(),
            self.correct[number].tolist(),
        )


def count_without_law(groups: Sequence[Group], mask_token_id: int) -> int:
    """Rollouts of which some token was drawn from numbers that are no probabilities."""
    count = 0
    for group in groups:
        for trace in group.traces:
            assert trace.log_probability is not None
            drawn = trace.inputs == mask_token_id
            count += bool((drawn & ~trace.log_probability.isfinite()).any())
    return count


@dataclass(frozen=True)
class Chosen:
    """What one worker trains on in a round.

    Attributes:
        groups: of this worker.
        values: float64[P, G, S'] of its groups, S' being 1 where only final responses count.
        kept: bool[P], false where the advantages of a group say nothing.
        rows: bool[P, G, S'], what is trained on.
    """

    groups: Sequence[Group]
    values: Tensor
    kept: Tensor
    rows: Tensor


def choose(groups: Sequence[Group], section: PolicySection, shape: ModelShape) -> Chosen:
    """Advantages of a worker's groups and the steps to train on: a function of each group alone."""
    rewards = torch.stack([group.rewards for group in groups])
    if section.loss != "mdpo":
        found = advantages(rewards[..., -1:], "single", section.normalisation)
        return Chosen(groups, found.values, found.kept, _of_kept(found.kept, found.values))
    found = advantages(rewards, section.advantage, section.normalisation)
    trainable = torch.stack([trainable_steps(group.traces, section, shape) for group in groups])
    steps = chosen_steps(found.values, trainable, section.sample_train_steps)
    rows = _of_kept(found.kept, found.values) & steps[:, None] & trainable
    return Chosen(groups, found.values, found.kept, rows)


def _of_kept(kept: Tensor, values: Tensor) -> Tensor:
    return kept[:, None, None].expand(values.shape)


def make_rows(
    chosen: Chosen, section: PolicySection, shape: ModelShape, *, seed: int, iteration: int
) -> PolicyRows:
    """The rows of a worker's chosen steps or responses; none where nothing was chosen.

    Args:
        chosen: by `choose`.
        section: of the policy.
        shape: of the model.
        seed: of the masks of the baselines.
        iteration: passes over rollouts so far in the run: the baselines draw new masks in each.
    """
    rollouts: list[Rollout] = []
    steps: list[int] = []
    worth: list[float] = []
    for place, number, step in chosen.rows.nonzero().tolist():
        rollouts.append(chosen.groups[place].rollout(number, section.group_size))
        steps.append(step)
        worth.append(float(chosen.values[place, number, step]))
    if section.loss == "mdpo" or not rollouts:
        return rows_of_steps(rollouts, steps, worth, section, shape)
    return rows_of_responses(rollouts, worth, section, shape, seed=seed, iteration=iteration)
