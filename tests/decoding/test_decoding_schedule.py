"""How many tokens each step reveals."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymdm.config.decoding import DecodingSection
from raymdm.decoding import block_schedules, check_decoding, even_schedule
from raymdm.decoding.schedule import Step, mask_ratio, plan, ratio_schedule, remaining_schedule
from raymdm.errors import ConfigurationError

CURVES = ("linear", "cosine", "power", "log", "exp")


@given(st.integers(1, 300), st.integers(1, 300))
def test_all_tokens_are_shared_evenly_and_the_remainder_comes_first(tokens: int, steps: int):
    schedule = even_schedule(tokens, steps)
    assert len(schedule) == steps
    assert sum(schedule) == tokens
    assert max(schedule) - min(schedule) <= 1
    assert schedule == sorted(schedule, reverse=True)


@pytest.mark.parametrize(
    ("tokens", "steps", "schedule"),
    [(16, 5, [4, 3, 3, 3, 3]), (4, 6, [1, 1, 1, 1, 0, 0]), (8, 1, [8]), (3, 3, [1, 1, 1])],
)
def test_known_schedules(tokens: int, steps: int, schedule: list[int]):
    assert even_schedule(tokens, steps) == schedule


@pytest.mark.parametrize(
    ("tokens", "steps", "schedule"),
    [
        (16, 8, [1, 2, 2, 2, 2, 2, 2, 3]),
        (12, 12, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2]),
        (16, 5, [3, 3, 3, 3, 4]),
        (14, 6, [2, 2, 2, 2, 2, 4]),
        (5, 1, [5]),
    ],
)
def test_dreams_share_of_what_remains_is_cut_to_whole_tokens(
    tokens: int, steps: int, schedule: list[int]
):
    assert remaining_schedule(tokens, steps) == schedule


@pytest.mark.parametrize(
    ("curve", "share", "ratio"),
    [
        ("linear", 0.25, 0.75),
        ("cosine", 0.5, math.sqrt(0.5)),
        ("power", 0.5, 1 - 0.5**3),
        ("log", 0.25, 2 / 4),
        ("exp", 0.5, 1 - 2**-2),
    ],
)
def test_the_mask_ratios_are_maskgits_curves(curve: str, share: float, ratio: float):
    assert mask_ratio(curve, share, tokens=16, power=3.0) == pytest.approx(ratio, abs=1e-12)


@pytest.mark.parametrize(
    ("curve", "tokens", "steps", "masked"),
    [  # floor(16 · cos) and floor(12 · (1 - r)), of the published RCR traces
        ("cosine", 16, 8, [15, 14, 13, 11, 8, 6, 3, 0]),
        ("linear", 12, 5, [9, 7, 4, 2, 0]),
        ("exp", 16, 4, [14, 12, 8, 0]),
        ("log", 16, 4, [8, 4, 1, 0]),
    ],
)
def test_what_stays_masked_is_the_ratio_cut_to_whole_tokens(
    curve: str, tokens: int, steps: int, masked: list[int]
):
    schedule = ratio_schedule(tokens, steps, curve)
    assert [tokens - sum(schedule[: step + 1]) for step in range(steps)] == masked


@given(st.integers(1, 60), st.integers(1, 60))
def test_equal_linear_steps_are_equal_whatever_the_floating_point(each: int, steps: int):
    assert ratio_schedule(each * steps, steps, "linear") == [each] * steps


@given(st.sampled_from(CURVES), st.integers(1, 200), st.integers(1, 200), st.floats(0.1, 5))
def test_every_curve_reveals_every_token_once(curve: str, tokens: int, steps: int, power: float):
    schedule = ratio_schedule(tokens, steps, curve, power)
    assert len(schedule) == steps
    assert min(schedule) >= 0
    assert sum(schedule) == tokens


@pytest.mark.parametrize(
    ("length", "block", "steps", "schedules"),
    [
        (4, None, None, [[1, 1, 1, 1]]),
        (5, 2, None, [[1, 1], [1, 1], [1]]),
        (5, 2, 6, [[1, 1], [1, 1], [1, 0]]),
        (6, 3, 4, [[2, 1], [2, 1]]),
        (4, 99, 2, [[2, 2]]),
    ],
)
def test_blocks_share_the_steps_equally_and_the_last_may_be_shorter(
    length: int, block: int | None, steps: int | None, schedules: list[list[int]]
):
    settings = DecodingSection(block_length=block, steps=steps)
    assert block_schedules(settings, length) == schedules


def test_a_plan_says_where_a_step_may_write_what_and_how_much_is_left():
    settings = DecodingSection(block_length=3, steps=4)
    assert plan(settings, 5) == (Step(3, 2, 1), Step(3, 1, 0), Step(5, 1, 1), Step(5, 1, 0))


@pytest.mark.parametrize("schedule", ["even", "remaining", *CURVES])
def test_each_schedule_is_reached_by_its_name(schedule: Any):
    settings = DecodingSection(steps=8, schedule=schedule, schedule_power=3.0)
    expected = {
        "even": even_schedule(40, 8),
        "remaining": remaining_schedule(40, 8),
    }.get(schedule) or ratio_schedule(40, 8, schedule, 3.0)
    assert block_schedules(settings, 40) == [expected]


def test_steps_that_the_blocks_cannot_share_are_refused_with_a_way_out():
    settings = DecodingSection(response_length=12, block_length=4, steps=8)
    with pytest.raises(ConfigurationError, match=r"steps 8 .* 3 blocks .* multiple of 3"):
        check_decoding(settings, causal=False)


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_a_response_length_is_needed(threshold: float | None):
    with pytest.raises(ConfigurationError, match="response_length"):
        check_decoding(DecodingSection(threshold=threshold), causal=False)
