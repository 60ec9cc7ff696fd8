"""Which prompts the rounds are for: by address, whatever was resumed and whoever asks."""

import json

import pytest

from raymdm.errors import ConfigurationError
from raymdm.reinforcement.prompts import (
    IncrementalPrompts,
    Prompts,
    PromptStream,
    block_lengths,
)

NUMBERS = list(range(100, 111))


def incremental(*lists: list[int], per_step: int = 4) -> IncrementalPrompts:
    stream = IncrementalPrompts(NUMBERS, 7, per_step)
    for numbers in lists:
        stream.renew(numbers)
    return stream


def test_an_epoch_goes_once_through_the_prompts_and_the_next_in_another_order():
    stream = PromptStream(NUMBERS, 7, 5)
    rounds = [stream.round(step) for step in range(4)]
    assert [one.epoch for one in rounds] == [0, 0, 1, 1]
    first, second = rounds[0].numbers + rounds[1].numbers, rounds[2].numbers + rounds[3].numbers
    for epoch in (first, second):
        assert len(set(epoch)) == 10
        assert set(epoch) < set(NUMBERS)
    assert first != second
    assert PromptStream(NUMBERS, 7, 5).round(3) == rounds[3]
    assert PromptStream(NUMBERS, 8, 5).round(3) != rounds[3]


def test_a_plain_stream_asks_for_no_list_and_has_no_state():
    stream: Prompts = PromptStream(NUMBERS, 7, 5)
    assert not any(stream.due(step) for step in range(9))
    assert stream.state() == {}


@pytest.mark.parametrize("kind", [PromptStream, IncrementalPrompts])
def test_too_few_prompts_for_a_round_are_refused(kind: type[PromptStream | IncrementalPrompts]):
    with pytest.raises(ConfigurationError, match="prompts_per_step 12 is more than the 11 prompts"):
        kind(NUMBERS, 7, 12)


def test_a_list_is_due_at_the_start_of_every_epoch():
    stream = incremental()
    assert stream.due(0)
    assert stream.renew(NUMBERS[:9]) is None
    assert [stream.due(step) for step in range(4)] == [False, False, True, True]
    seen = stream.round(0).numbers + stream.round(1).numbers
    assert len(set(seen)) == 8
    assert set(seen) < set(NUMBERS[:9])
    stream.renew(NUMBERS[5:9])
    assert [stream.due(step) for step in (2, 3)] == [False, True]
    assert stream.round(2).epoch == 1
    assert sorted(stream.round(2).numbers) == NUMBERS[5:9]
    orders = {
        tuple(incremental(*[NUMBERS[:9]] * epochs).round(2 * epochs - 1).numbers)
        for epochs in range(1, 6)
    }
    assert len(orders) == 5, "every epoch has an order of its own"
    for step in (1, 3):
        with pytest.raises(ValueError, match=f"round {step} is not in epoch 1"):
            stream.round(step)


def test_a_short_list_is_filled_up_with_others_by_address():
    stream = incremental()
    assert "epoch 0 takes 2 others" in str(stream.renew([103, 104]))
    filled = stream.round(0).numbers
    assert stream.due(1)
    assert len(set(filled)) == 4
    assert {103, 104} < set(filled) < set(NUMBERS)
    assert incremental([103, 104]).round(0).numbers == filled
    others = {
        tuple(sorted(incremental(*[[103, 104]] * epochs).round(epochs - 1).numbers))
        for epochs in range(1, 6)
    }
    assert len(others) > 1, "every epoch draws its own"


def test_an_empty_list_means_all_prompts():
    stream = incremental()
    assert "epoch 0 takes all 11" in str(stream.renew([]))
    assert [stream.due(step) for step in (1, 2)] == [False, True]
    assert len(set(stream.round(0).numbers + stream.round(1).numbers)) == 8


@pytest.mark.parametrize("lists", [[], [[]], [[103]], [NUMBERS[:9]], [NUMBERS[:9], NUMBERS[1:9]]])
def test_a_state_goes_on_exactly(lists: list[list[int]]):
    before = incremental(*lists)
    after = incremental()
    after.restore(json.loads(json.dumps(before.state())))
    for stream in (before, after):
        if stream.due(before.start):
            stream.renew(NUMBERS[2:10])
    steps = range(before.start, before.end)
    assert [after.round(step) for step in steps] == [before.round(step) for step in steps]
    for stream in (before, after):
        stream.renew(NUMBERS[3:8])
    assert after.round(before.start) == before.round(before.start)
    assert after.state() == before.state()


def test_block_lengths_are_drawn_for_each_group_whoever_asks_for_it():
    numbers = list(range(200))
    whole = block_lengths(numbers, 3, [128, 512], 1)
    assert whole[50:60] == block_lengths(numbers[50:60], 3, [128, 512], 1)
    assert 70 < whole.count(128) < 130
    assert set(whole) == {128, 512}
    assert block_lengths(numbers, 4, [128, 512], 1) != whole
    assert block_lengths(numbers, 3, [128, 512], 2) != whole
