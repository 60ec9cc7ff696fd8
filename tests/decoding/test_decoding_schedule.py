"""How many tokens each step reveals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymdm.config.decoding import DecodingSection
from raymdm.decoding import even_schedule
from raymdm.decoding.schedule import block_schedules
from raymdm.errors import ConfigurationError


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
    settings = DecodingSection(response_length=length, block_length=block, steps=steps)
    assert block_schedules(settings) == schedules


def test_steps_that_the_blocks_cannot_share_are_refused_with_a_way_out():
    settings = DecodingSection(response_length=12, block_length=4, steps=8)
    with pytest.raises(ConfigurationError, match=r"steps 8 .* 3 blocks .* multiple of 3"):
        block_schedules(settings)


def test_a_response_length_is_needed():
    with pytest.raises(ConfigurationError, match="response_length"):
        block_schedules(DecodingSection())
