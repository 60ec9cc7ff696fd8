"""A response does not depend on its company."""

from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from written import EOS, tiny_model

from raymdm.config.decoding import DecodingSection
from raymdm.decoding import generate
from raymdm.decoding.batching import batches

MODEL = tiny_model()
KINDS: list[dict[str, Any]] = [
    {"block_length": 4},
    {"block_length": 3, "threshold": 0.3},
    {"remasking": "running_max", "steps": 4, "block_length": 4, "schedule": "cosine"},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 0.7, "sampling": "categorical", "confidence": "margin", "top_k": 9},
    {"remasking": "last", "steps": 4, "temperature": 1.0},
    {"guidance": 1.0, "confidence": "entropy", "schedule": "remaining", "steps": 4},
    {"confidence": "random", "eos": "last", "stop_at_eos": False},
    {"cache": "prefix", "block_length": 4, "stop_at_eos": False},
    {"cache": "dual", "block_length": 3, "threshold": 0.3, "temperature": 0.5},
    {"cache": "dual", "block_length": 4, "guidance": 0.5, "threshold": 0.4},
]
# None is empty: in a row of nothing but masks all positions are equal, and rounding decides.
PROMPTS = [[(7 * row + 3 * at) % 21 for at in range(1 + (5 * row) % 11)] for row in range(9)]


def decoding(kind: int) -> DecodingSection:
    return DecodingSection(response_length=8, **KINDS[kind])


@cache
def alone(kind: int) -> list[list[int]]:
    settings = decoding(kind)
    return [
        generate(MODEL, [prompt], settings, numbers=[row])[0] for row, prompt in enumerate(PROMPTS)
    ]


@pytest.mark.parametrize("kind", range(len(KINDS)))
@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(st.integers(0, 8), min_size=1, max_size=9, unique=True),
    batch_size=st.integers(1, 9),
    trace=st.booleans(),
)
def test_a_row_is_written_as_it_is_alone(kind: int, rows: list[int], batch_size: int, trace: bool):
    """In any batch and order, beside longer and shorter rows, with a trace and without."""
    found = generate(
        MODEL,
        [PROMPTS[row] for row in rows],
        decoding(kind),
        trace=trace,
        numbers=rows,
        batch_size=batch_size,
    )
    responses = found[0] if trace else found
    assert responses == [alone(kind)[row] for row in rows]


def test_the_rows_above_are_worth_comparing():
    found = [alone(kind) for kind in range(len(KINDS))]
    for kind, responses in enumerate(found):
        assert len({tuple(response) for response in responses}) > 4, KINDS[kind]
    assert any(EOS in response for responses in found for response in responses)


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 9))
def test_batches_hold_rows_of_like_length_the_longest_first(lengths: list[int], size: int):
    found = batches(lengths, size)
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    assert [len(batch) for batch in found[:-1]] == [size] * (len(found) - 1) if found else True
    flat = [lengths[row] for batch in found for row in batch]
    assert flat == sorted(flat, reverse=True)
