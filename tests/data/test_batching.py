"""How rows are shared among forwards: always the same rows, as many forwards, none empty."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymdm.data.batching import micro_batches

LENGTHS = np.array([9, 2, 7, 3, 8, 2, 4])


@pytest.mark.parametrize(
    ("batching", "wanted"),
    [
        ("padded", [[0, 1, 2], [3, 4, 5], [6]]),
        ("bucketed", [[1, 5, 3], [6, 2, 4], [0]]),
        ("packed", [[0, 1, 5], [4, 3], [2, 6]]),  # 13, 11 and 11 tokens
    ],
)
def test_rows_go_where_the_rule_says(batching: str, wanted: list[list[int]]):
    assert micro_batches(LENGTHS, 3, batching) == wanted  # type: ignore[arg-type]


@given(
    st.lists(st.integers(1, 600), min_size=1, max_size=40),
    st.integers(1, 50),
    st.sampled_from(["padded", "bucketed", "packed"]),
)
def test_every_row_is_in_one_forward(lengths: list[int], size: int, batching: str):
    groups = micro_batches(np.array(lengths), size, batching)  # type: ignore[arg-type]
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    assert len(groups) == -(-len(lengths) // size)
    assert all(groups)


@given(st.lists(st.integers(1, 600), min_size=4, max_size=40))
def test_packed_forwards_differ_by_less_than_the_longest_row(lengths: list[int]):
    tokens = [sum(lengths[row] for row in g) for g in micro_batches(np.array(lengths), 4, "packed")]
    assert max(tokens) - min(tokens) <= max(lengths)
