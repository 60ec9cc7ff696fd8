"""What rollouts were worth: the texts of all their steps, to the tasks that compute rewards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raymdm.data.evaluation import Item
from raymdm.decoding import Trace
from raymdm.policy.texts import step_texts
from raymdm.reinforcement.reward_tasks import RewardTasks


@dataclass(frozen=True)
class Judged:
    """Of P prompts with G rollouts of S steps each.

    Attributes:
        rewards: P times float64[G, S], the weighted sums.
        correct: P times float64[G, S], the task's own score.
        parts: by name the sum of every reward over the final texts, before its weight.
        checks: rewards that were computed: of equal texts once.
        timed_out: of them, those that took too long, and count 0.
        crashed: of them, those that failed otherwise, and count 0.
    """

    rewards: list[Tensor]
    correct: list[Tensor]
    parts: dict[str, float]
    checks: int
    timed_out: int
    crashed: int


def judge(
    items: Sequence[Item],
    traces: Sequence[Sequence[Trace]],
    tasks: RewardTasks,
    tokenizer: Any,
    eos_token_id: int,
) -> Judged:
    """The rewards of every step's text.

    Args:
        items: P prompts with their references.
        traces: of each its G rollouts, all of S steps.
        tasks: compute the rewards, `correct` among them.
        tokenizer: of the model.
        eos_token_id: ends a text.
    """
    texts = [step_texts(group, tokenizer, eos_token_id) for group in traces]
    flat = [text for group in texts for steps in group for text in steps]
    references = [
        item.reference
        for item, group in zip(items, texts, strict=True)
        for steps in group
        for _ in steps
    ]
    scores = tasks(flat, references)
    shapes = [(len(group), len(group[0])) for group in texts]
    sizes = [rollouts * steps for rollouts, steps in shapes]

    def grouped(values: list[float]) -> list[Tensor]:
        pieces = torch.tensor(values, dtype=torch.float64).split(sizes)
        return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]

    return Judged(
        rewards=grouped(scores.values),
        correct=grouped(scores.parts["correct"]),
        parts={
            name: float(sum(group[:, -1].sum() for group in grouped(values)))
            for name, values in scores.parts.items()
        },
        checks=scores.checks,
        timed_out=scores.timed_out,
        crashed=scores.crashed,
    )
