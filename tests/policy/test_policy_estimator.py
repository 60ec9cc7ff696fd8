"""What the expected policy gradient is the gradient of: all outcomes of a small model, enumerated.

Three positions in three steps, two tokens that can be written (one is EOS): 2^3 · 2^2 · 2 = 64
rollouts. The sampler makes them with its draws prescribed, and the loss is taken over all of them,
each with its probability. What that is held against is played by hand: the probabilities of the
whole game, and who stands.
"""

from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from rolled import SHAPE, decoding, policy
from torch import Tensor

from raymdm.config.policy import RolloutDecodingSection
from raymdm.decoding import generate, prediction
from raymdm.decoding.noise import uniforms
from raymdm.models import Backbone, build_model
from raymdm.policy.loss import policy_loss
from raymdm.policy.rows import Rollout
from raymdm.policy.scoring import score
from raymdm.policy.steps import rows_of_steps, trainable_steps

EOS, MASK, N = 1, 2, 3
SMALL = replace(SHAPE, vocabulary_size=3, eos_token_id=EOS, mask_token_id=MASK, pad_token_id=MASK)
PROMPT = [0]
TEMPERATURE = 0.8
PATHS = list(product(range(2), repeat=N + 2 + 1))
"""The tokens drawn at the masked positions of the three steps."""
TEXTS = list(product(range(2), repeat=N))
GENERATOR = torch.Generator().manual_seed(0)
TABLE = dict(zip(TEXTS, torch.rand(8, generator=GENERATOR, dtype=torch.float64), strict=True))


def reward(text: tuple[int, ...]) -> float:
    """Of all that stands in a text."""
    return float(TABLE[text])


def reward_to_eos(text: tuple[int, ...]) -> float:
    """Of what stands before the first EOS."""
    end = text.index(EOS) if EOS in text else N
    return float(TABLE[(*text[:end], *[EOS] * (N - end))])


@pytest.fixture(scope="module")
def model() -> Backbone:
    return build_model(SMALL, 3, 0.6).double()


@dataclass
class Game:
    """A path, played by hand: the probability of each step's draws, its x0, and the final text."""

    chances: list[Tensor]
    wholes: list[tuple[int, ...]]
    final: tuple[int, ...]


@cache
def noise(step: int) -> list[float]:
    return uniforms(0, [0], [0], [step], [N])[1, 0].tolist()


def games(model: Backbone, settings: RolloutDecodingSection) -> list[Game]:
    every = list(product(range(3), repeat=N))
    logits = model(torch.tensor([[*PROMPT, *state] for state in every]))[:, len(PROMPT) :]
    own = logits.softmax(-1)
    drawn = logits[..., :MASK].div(TEMPERATURE).softmax(-1)
    entropy = -torch.special.entr(own).sum(-1)
    place = {state: index for index, state in enumerate(every)}
    sure = {"probability": own.tolist(), "entropy": entropy.tolist()}
    played = []
    for path in PATHS:
        state, tokens, chances, wholes = (MASK,) * N, iter(path), [], []
        kept = [-1e9] * N
        for step in range(N):
            at, masked = place[state], [i for i in range(N) if state[i] == MASK]
            whole, chance = list(state), torch.ones((), dtype=torch.float64)
            confident = [-1e9] * N
            for i in masked:
                whole[i] = next(tokens)
                chance = chance * drawn[at, i, whole[i]]
                if settings.confidence == "probability":
                    confident[i] = sure["probability"][at][i][whole[i]]
                elif settings.confidence == "entropy":
                    confident[i] = sure["entropy"][at][i]
                else:
                    confident[i] = noise(step)[i]
            chances.append(chance)
            wholes.append(tuple(whole))
            if settings.remasking == "none":
                best = max(masked, key=lambda i: confident[i])
                state = tuple(whole[i] if i == best else state[i] for i in range(N))
            else:
                kept = [max(kept[i], confident[i]) for i in range(N)]
                again = sorted(range(N), key=lambda i: kept[i])[: N - 1 - step]
                state = tuple(MASK if i in again else whole[i] for i in range(N))
        played.append(Game(chances, wholes, state))
    return played


def gradient(value: Tensor, model: Backbone) -> Tensor:
    found = torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in found])


def rollouts(
    model: Backbone, settings: RolloutDecodingSection, monkeypatch: pytest.MonkeyPatch
) -> list[Rollout]:
    """All outcomes, made by the sampler with prescribed draws."""
    paths, used = torch.tensor(PATHS), 0

    def draw(logits: Tensor, *_: Any) -> Tensor:
        nonlocal used
        count = len(logits) // len(PATHS)
        used += count
        return paths[:, used - count : used].flatten()

    with monkeypatch.context() as patch:
        patch.setattr(prediction, "draw", draw)
        _, traces = generate(
            model,
            [PROMPT] * len(PATHS),
            settings,
            trace=True,
            numbers=[0] * len(PATHS),
            rollout=range(len(PATHS)),
            batch_size=len(PATHS),
            log_probabilities=True,
        )
    return [Rollout(PROMPT, trace, 0, which) for which, trace in enumerate(traces)]


def settings_of(confidence: str, remasking: str = "none") -> RolloutDecodingSection:
    return decoding(
        response_length=N,
        steps=N,
        temperature=TEMPERATURE,
        confidence=confidence,
        remasking=remasking,
        stop_at_eos=False,
    )


def expected_gradient(
    model: Backbone,
    played: list[Rollout],
    advantages: list[list[float]],
    settings: RolloutDecodingSection,
    *,
    total: bool,
    **keys: Any,
) -> Tensor:
    """Minus the expected gradient of the loss with ratio 1 and without KL, over all rollouts.

    `total`: the sum over a row's positions in place of their mean.
    """
    section = policy(decoding=settings, **keys)
    can = trainable_steps([rollout.trace for rollout in played], section, SMALL)
    places = can.nonzero().tolist()
    rows = rows_of_steps(
        [played[which] for which, _ in places],
        [step for _, step in places],
        [advantages[which][step] for which, step in places],
        section,
        SMALL,
    )
    new = score(model, rows, settings, SMALL)
    per_row = policy_loss(new, rows.with_behaviour(new), epsilon=0.2, beta=0.0).per_row
    drawn = torch.stack([rollout.trace.log_probability for rollout in played]).double()
    chance = drawn.nansum((-2, -1)).exp()
    assert float(chance.sum()) == pytest.approx(1, abs=1e-5)
    weight = chance[[which for which, _ in places]]
    if total:
        weight = weight * rows.counted.sum(-1)
    return -gradient((weight * per_row).sum(), model)


def expected_reward(played: list[Game]) -> Tensor:
    """Over all paths, each with its probability."""
    return sum(torch.stack(game.chances).prod() * reward(game.final) for game in played)


def same(found: Tensor, wanted: Tensor) -> None:
    """Up to the float32 in which traces keep probabilities."""
    assert float((found - wanted).norm() / wanted.norm()) < 1e-5


ORDERS = [
    ("probability", "none"),
    ("probability", "running_max"),
    ("entropy", "none"),
    ("shared_order", "none"),
    ("shared_order", "running_max"),
]


@pytest.mark.parametrize(("confidence", "remasking"), ORDERS)
def test_final_rewards_on_all_masked_positions_are_the_policy_gradient(
    model: Backbone, monkeypatch: pytest.MonkeyPatch, confidence: str, remasking: str
):
    settings = settings_of(confidence, remasking)
    by_hand = games(model, settings)
    played = rollouts(model, settings, monkeypatch)
    finals = [tuple(rollout.trace.states[-1].tolist()) for rollout in played]
    assert finals == [game.final for game in by_hand]
    value = expected_reward(by_hand)
    advantages = [[reward(final)] * N for final in finals]
    found = expected_gradient(model, played, advantages, settings, total=True, after_eos=True)
    same(found, gradient(value, model))


def test_the_policy_gradient_is_that_of_finite_differences(model: Backbone):
    """Who stands depends on the weights too; that changes nothing but at the rare ties."""
    settings = settings_of("probability", "running_max")

    def value() -> Tensor:
        return expected_reward(games(model, settings))

    exact = gradient(value(), model)
    way = torch.randn(exact.shape, generator=GENERATOR, dtype=torch.float64)
    values = []
    with torch.no_grad():
        start = torch.nn.utils.parameters_to_vector(model.parameters()).clone()
        for step in (1e-6, -1e-6):
            torch.nn.utils.vector_to_parameters(start + step * way, model.parameters())
            values.append(float(value()))
        torch.nn.utils.vector_to_parameters(start, model.parameters())
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(float(exact @ way), rel=1e-5)


@pytest.mark.parametrize(("confidence", "remasking"), ORDERS)
def test_revealed_positions_are_enough_only_where_the_order_does_not_depend_on_the_tokens(
    model: Backbone, monkeypatch: pytest.MonkeyPatch, confidence: str, remasking: str
):
    settings = settings_of(confidence, remasking)
    by_hand = games(model, settings)
    played = rollouts(model, settings, monkeypatch)
    value = expected_reward(by_hand)
    found = expected_gradient(
        model,
        played,
        [[reward(game.final)] * N for game in by_hand],
        settings,
        total=True,
        after_eos=True,
        tokens="revealed",
    )
    wanted = gradient(value, model)
    if confidence == "probability":
        assert float((found - wanted).norm() / wanted.norm()) > 0.02
    else:
        same(found, wanted)


def step_gradient(
    model: Backbone, by_hand: list[Game], rewards: Any, weights: list[float]
) -> Tensor:
    """Of the weighted sum over steps of E[R(x0)], the law of what each step reads held fixed."""
    value = torch.zeros((), dtype=torch.float64)
    for game in by_hand:
        for step, chance in enumerate(game.chances):
            others = [other.detach() for at, other in enumerate(game.chances) if at != step]
            share = torch.stack([chance, *others]).prod()
            value = value + weights[step] * share * rewards(game.wholes[step])
    return gradient(value, model)


@pytest.mark.parametrize(("confidence", "remasking"), ORDERS[:2])
def test_rewards_of_predictions_make_each_step_better_given_what_it_reads(
    model: Backbone, monkeypatch: pytest.MonkeyPatch, confidence: str, remasking: str
):
    """Advantage `single`; and the mean over M positions gives a step 1/M of its share."""
    settings = settings_of(confidence, remasking)
    by_hand = games(model, settings)
    played = rollouts(model, settings, monkeypatch)
    single = [[reward(whole) for whole in game.wholes] for game in by_hand]
    summed = expected_gradient(model, played, single, settings, total=True, after_eos=True)
    same(summed, step_gradient(model, by_hand, reward, [1, 1, 1]))
    mean = expected_gradient(model, played, single, settings, total=False, after_eos=True)
    same(mean, step_gradient(model, by_hand, reward, [1 / 3, 1 / 2, 1]))
    factor = expected_gradient(
        model, played, single, settings, total=False, after_eos=True, length_factor=True
    )
    same(factor, step_gradient(model, by_hand, reward, [3 / 9, 3 / 4, 3]))


def test_positions_after_the_eos_of_a_prediction_whose_text_is_rewarded_add_nothing(
    model: Backbone, monkeypatch: pytest.MonkeyPatch
):
    settings = settings_of("probability")
    by_hand = games(model, settings)
    played = rollouts(model, settings, monkeypatch)
    single = [[reward_to_eos(whole) for whole in game.wholes] for game in by_hand]
    wanted = step_gradient(model, by_hand, reward_to_eos, [1, 1, 1])
    for after in (False, True):
        same(
            expected_gradient(model, played, single, settings, total=True, after_eos=after),
            wanted,
        )
