"""Which slots are revealed, and which are masked again."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from raymdm.decoding.choosing import confident_enough, first_places, masked_again, updated

NO = -torch.inf


def chosen(slots: Tensor) -> list[list[int]]:
    return [row.nonzero()[:, 0].tolist() for row in slots]


def test_the_greatest_come_first_and_equals_from_the_left():
    ranked = torch.tensor([[0.5, 0.9, 0.5, 0.5], [0.1, NO, 0.3, 0.2], [1.0, 1.0, 1.0, 1.0]])
    assert chosen(first_places(ranked, torch.tensor([3, 2, 2]))) == [[0, 1, 2], [2, 3], [0, 1]]
    assert chosen(first_places(ranked, torch.tensor([0, 3, 4]))) == [[], [0, 2, 3], [0, 1, 2, 3]]


def test_slots_that_are_to_come_last_do_but_before_those_that_are_no_choice():
    ranked = torch.tensor([[0.9, 0.1, 0.8, NO, 0.8]])
    last = torch.tensor([[True, False, True, False, True]])
    for count, wanted in enumerate([[], [1], [0, 1], [0, 1, 2], [0, 1, 2, 4]]):
        assert chosen(first_places(ranked, torch.tensor([count]), last)) == [wanted]


@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=4))
def test_first_places_are_those_of_a_plain_sort(rows: list[list[int]]):
    counts = [sum(row) % 6 for row in rows]
    found = chosen(first_places(torch.tensor(rows).float(), torch.tensor(counts)))
    assert found == [
        sorted(sorted(range(5), key=lambda at, row=row: (-row[at], at))[:count])
        for row, count in zip(rows, counts, strict=True)
    ]


def test_all_that_are_confident_enough_are_counted_and_at_least_one():
    confidence = torch.tensor([[0.9, 0.5, 0.95], [0.1, 0.2, 0.99], [0.9, 0.9, 0.9]])
    candidates = torch.tensor([[True, True, True], [True, True, False], [False, False, False]])
    assert confident_enough(confidence, candidates, 0.9).tolist() == [2, 1, 0]


def test_those_that_come_last_count_only_among_themselves():
    confidence = torch.tensor([[0.9, 0.95, 0.8], [0.9, 0.95, 0.8]])
    candidates = torch.tensor([[True, True, True], [True, True, False]])
    last = torch.tensor([[True, True, False], [True, True, False]])
    assert confident_enough(confidence, candidates, 0.9, last).tolist() == [1, 2]


def test_the_two_rules_of_remasking_keep_the_greatest_or_the_latest_confidence():
    running = torch.tensor([[0.7, NO, 0.4, 0.6]])
    confidence = torch.tensor([[0.3, 0.2, 0.5, 0.9]])
    decoded = torch.tensor([[True, True, True, False]])
    for rule, wanted in (("running_max", [0.7, 0.2, 0.5, 0.6]), ("last", [0.3, 0.2, 0.5, 0.6])):
        found = updated(running, confidence, decoded, rule)
        torch.testing.assert_close(found, torch.tensor([wanted]))


def test_the_least_confident_are_masked_again_equals_from_the_right():
    running = torch.tensor([[1.0, 1.0, 1.0, 1.0, 5.0], [0.2, 0.9, 0.1, 0.3, 5.0]])
    eligible = torch.tensor([[True, True, True, True, False]] * 2)
    assert chosen(masked_again(running, eligible, torch.tensor([2, 3]))) == [[2, 3], [0, 2, 3]]
    last = torch.tensor([[True, False, False, False, True]] * 2)
    assert chosen(masked_again(running, eligible, torch.tensor([2, 1]), last)) == [[0, 3], [0]]
