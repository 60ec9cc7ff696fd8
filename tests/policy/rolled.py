"""A tiny model and rollouts of it."""

from typing import Any

import torch

from raymdm.config.policy import PolicySection, RolloutDecodingSection
from raymdm.decoding import Trace, generate
from raymdm.models import Backbone, ModelShape, build_model
from raymdm.policy.rows import PolicyRows, Rollout
from raymdm.policy.steps import rows_of_steps, trainable_steps, whole

EOS, MASK, PAD = 9, 10, 11
SHAPE = ModelShape(
    vocabulary_size=12,
    hidden_size=16,
    layers=2,
    heads=4,
    key_value_heads=4,
    intermediate_size=32,
    mask_token_id=MASK,
    eos_token_id=EOS,
    pad_token_id=PAD,
)
PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8, 3], [0, 1, 2, 3]]


def tiny_model(seed: int = 1, shape: ModelShape = SHAPE) -> Backbone:
    return build_model(shape, seed, 0.8).double()


def policy(**keys: Any) -> PolicySection:
    return PolicySection(**{"decoding": decoding(), **keys})


def decoding(**keys: Any) -> RolloutDecodingSection:
    return RolloutDecodingSection(**{"response_length": 8, "steps": 4, **keys})


def rolled(model: Backbone, settings: RolloutDecodingSection, group: int = 2) -> list[Rollout]:
    """Some rollouts of every prompt, all in one batch."""
    numbers = [number for number in range(len(PROMPTS)) for _ in range(group)]
    rollouts = [rollout for _ in PROMPTS for rollout in range(group)]
    _, traces = generate(
        model,
        [PROMPTS[number] for number in numbers],
        settings,
        trace=True,
        numbers=numbers,
        rollout=rollouts,
        log_probabilities=True,
    )
    places = zip(traces, numbers, rollouts, strict=True)
    return [
        Rollout(PROMPTS[number], whole(trace, settings), number, which)
        for trace, number, which in places
    ]


def every_step(rollouts: list[Rollout], section: PolicySection) -> PolicyRows:
    """The rows of all steps that can be trained on, with advantages of either sign."""
    can = trainable_steps([rollout.trace for rollout in rollouts], section, SHAPE)
    places = can.nonzero().tolist()
    advantages = torch.randn(len(places), generator=torch.Generator().manual_seed(3))
    steps = [step for _, step in places]
    return rows_of_steps([rollouts[k] for k, _ in places], steps, advantages, section, SHAPE)


def by_hand(start: list[int], states: list[list[int]], predictions: list[list[int]]) -> Trace:
    """A trace whose positions were drawn with probability 1/4 and confidence 1/2."""
    shown = torch.tensor([start, *states[:-1]])
    drawn = torch.full(shown.shape, 0.25).log().where(shown == MASK, torch.nan)
    return Trace(
        start=torch.tensor(start),
        states=torch.tensor(states),
        predictions=torch.tensor(predictions),
        confidence=torch.full(shown.shape, 0.5).where(shown == MASK, torch.nan),
        positions=torch.arange(len(start)),
        log_probability=drawn,
    )
