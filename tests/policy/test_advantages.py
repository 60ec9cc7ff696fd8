"""Advantages of MDPO, held against arithmetic by hand."""

from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor

from raymdm.policy.advantages import advantages, chosen_steps, normalised, raw_advantages

REWARDS = torch.tensor(
    [[[0, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0], [0, 1, 1, 1]]], dtype=torch.float64
)
"""One group: four rollouts of four steps."""

RAW = {
    "single": REWARDS[0].tolist(),
    # The mean of the later rewards; at the last step its own.
    "future": [
        [(0 + 0 + 1) / 3, (0 + 1) / 2, 1, 1],
        [(1 + 1 + 0) / 3, (1 + 0) / 2, 0, 0],
        [0, 0, 0, 0],
        [(1 + 1 + 1) / 3, (1 + 1) / 2, 1, 1],
    ],
    "difference": [
        [0, 0, 0, 1 - 0],
        [0, 1 - 0, 1 - 1, 0 - 1],
        [0, 0, 0, 0],
        [0, 1 - 0, 1 - 1, 1 - 1],
    ],
    # difference + 1 + future
    "difference_and_future": [
        [0 + 1 + 1 / 3, 0 + 1 + 1 / 2, 0 + 1 + 1, 1 + 1 + 1],
        [0 + 1 + 2 / 3, 1 + 1 + 1 / 2, 0 + 1 + 0, -1 + 1 + 0],
        [1, 1, 1, 1],
        [0 + 1 + 1, 1 + 1 + 1, 0 + 1 + 1, 0 + 1 + 1],
    ],
}


def of(kind: Any, normalisation: Any, rewards: Tensor = REWARDS) -> Tensor:
    return advantages(rewards, kind, normalisation).values


@pytest.mark.parametrize("kind", RAW)
def test_raw_advantages_are_those_by_hand(kind: Any):
    torch.testing.assert_close(raw_advantages(REWARDS[0], kind), torch.tensor(RAW[kind]).double())


def test_the_last_step_by_hand():
    # Raw 3, 0, 1, 2: mean 1.5, deviations 1.5, -1.5, -0.5, 0.5; squares 2.25 + 2.25 + 0.25 + 0.25
    # are 5, over n - 1 = 3; the standard deviation is sqrt(5 / 3) = 1.290994.
    wanted = torch.tensor([1.5, -1.5, -0.5, 0.5]).double() / (sqrt(5 / 3) + 1e-4)
    found = of("difference_and_future", "per_step")[0, :, -1]
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


def test_the_first_step_by_hand():
    # Raw 4/3, 5/3, 1, 2: mean 3/2, deviations -1/6, 1/6, -1/2, 1/2; squares 1/36 + 1/36 + 1/4 +
    # 1/4 are 5/9, over 3 is 5/27.
    wanted = torch.tensor([-1 / 6, 1 / 6, -1 / 2, 1 / 2]).double()
    found = of("difference_and_future", "per_step")[0, :, 0]
    torch.testing.assert_close(found, wanted / (sqrt(5 / 27) + 1e-4), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        of("difference_and_future", "mean")[0, :, 0], wanted, rtol=1e-6, atol=0
    )


def test_over_the_whole_group_by_hand():
    # Single rewards: 0001, 0110, 0000 and 0111 have six ones of sixteen; mean 3/8, squares
    # 6 · (5/8)² + 10 · (3/8)² = 150/64 + 90/64 = 15/4, over n - 1 = 15 is 1/4, its root 1/2.
    found = of("single", "group")[0]
    one, none = (1 - 3 / 8) / (1 / 2 + 1e-4), (0 - 3 / 8) / (1 / 2 + 1e-4)
    wanted = torch.where(REWARDS[0] == 1, one, none)
    torch.testing.assert_close(found, wanted.double(), rtol=1e-6, atol=0)


def test_a_lone_early_success_is_greatest_per_step_and_less_so_over_the_group():
    rewards = torch.zeros(1, 4, 3)
    rewards[0, 0] = 1  # right from the start
    rewards[0, 1, 2] = 1
    rewards[0, 2, 2] = 1
    per_step, group = of("single", "per_step", rewards), of("single", "group", rewards)
    assert per_step[0, 0, 0] > 1.4 * per_step[0, 0, 2]
    assert group[0, 0, 0] == group[0, 0, 2]


@pytest.mark.parametrize("kind", RAW)
@pytest.mark.parametrize("normalisation", ["per_step", "mean"])
def test_advantages_of_a_step_add_up_to_nothing(kind: Any, normalisation: Any):
    total = of(kind, normalisation).sum(1)
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", RAW)
@pytest.mark.parametrize("normalisation", ["per_step", "group", "mean"])
@pytest.mark.parametrize("reward", [0.0, 0.1, 1.0])
def test_a_group_of_equal_rewards_is_skipped_whatever_is_made_of_them(
    kind: Any, normalisation: Any, reward: float
):
    rewards = torch.stack([torch.full((4, 4), reward).double(), REWARDS[0]])
    found = advantages(rewards, kind, normalisation)
    assert found.kept.tolist() == [False, True]
    assert found.skipped == 1
    assert (found.values[0] == 0).all()


def test_equal_rollouts_teach_nothing_step_by_step():
    # Three times 0.1 have a mean that is not 0.1.
    rewards = torch.tensor([[[0.0, 0.1, 0.7]] * 3], dtype=torch.float64)
    assert advantages(rewards, "single", "per_step").kept.tolist() == [False]
    assert advantages(rewards, "single", "group").kept.tolist() == [True]


@pytest.mark.parametrize("kind", RAW)
def test_one_rollout_is_no_number_nowhere(kind: Any):
    alone = REWARDS[:, 1:2]
    found = advantages(alone, kind, "per_step")
    assert found.kept.tolist() == [False]
    assert (found.values == 0).all()
    assert torch.isfinite(of(kind, "group", alone)).all()
    assert torch.isfinite(of(kind, "group", alone[..., :1])).all()


@pytest.mark.parametrize("kind", RAW)
@pytest.mark.parametrize("normalisation", ["per_step", "group", "mean"])
def test_a_group_does_not_depend_on_the_groups_beside_it(kind: Any, normalisation: Any):
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(5, 4, 6, generator=generator).round(decimals=1)
    together = advantages(rewards, kind, normalisation)
    trainable = torch.rand(5, 4, 6, generator=generator) < 0.7
    steps = chosen_steps(together.values, trainable, 3)
    for workers in (2, 5):
        shares = [
            (advantages(part, kind, normalisation), can)
            for part, can in zip(rewards.chunk(workers), trainable.chunk(workers), strict=True)
        ]
        assert torch.equal(torch.cat([share.values for share, _ in shares]), together.values)
        apart = [chosen_steps(share.values, can, 3) for share, can in shares]
        assert torch.equal(torch.cat(apart), steps)


def test_the_steps_of_the_greatest_advantages_are_chosen_and_of_equals_the_earlier():
    values = torch.tensor([[[1.0, -3.0, 2.0, 0.0], [1.0, 1.0, -2.0, 4.0]]])
    can = torch.ones(1, 2, 4, dtype=torch.bool)  # worth 2, 4, 4, 4
    assert chosen_steps(values, can, 2).tolist() == [[False, True, True, False]]
    assert chosen_steps(values, can, 9).tolist() == [[True] * 4]


def test_steps_that_cannot_be_trained_on_are_not_chosen_and_do_not_count():
    values = torch.tensor([[[1.0, -3.0, 2.0, 0.0], [1.0, 1.0, -2.0, 4.0]]])
    can = torch.tensor([[[True, False, True, False], [True, True, True, False]]])
    # Worth 2, 1, 4 and nothing.
    assert chosen_steps(values, can, 2).tolist() == [[True, False, True, False]]
    assert chosen_steps(values, can, 4).tolist() == [[True, True, True, False]]


def test_normalised_does_not_mix_groups():
    raw = torch.stack([REWARDS[0], REWARDS[0] * 7 + 3])
    per_group = normalised(raw, "group")
    torch.testing.assert_close(per_group[0], per_group[1], rtol=1e-3, atol=0)
