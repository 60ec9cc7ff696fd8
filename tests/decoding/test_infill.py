"""Masks anywhere are filled in, and nothing else changes."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from written import EOS, MASK, SHAPE, tiny_model

from raymdm.config.decoding import DecodingSection
from raymdm.decoding import generate, infill
from raymdm.errors import ConfigurationError
from raymdm.models import Backbone

M = MASK
ROWS = [
    [1, M, 3, M, M, 6, M],
    [M, M, 2, M],
    [M, 4, 5],
    [1, 2, 3],
    [7, M, EOS, M, 2, 3, 4, 5, 6, 7, M],
    [],
    [M, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5],
]


@pytest.fixture(scope="module")
def model() -> Backbone:
    return tiny_model()


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"block_length": 2},
        {"threshold": 0.3, "block_length": 2},
        {"remasking": "last", "schedule": "cosine"},
        {"temperature": 1.0, "confidence": "random"},
        {"guidance": 1.0},
    ],
)
def test_masks_and_only_masks_are_written_in_any_company(model: Backbone, keys: dict[str, Any]):
    settings = DecodingSection(**keys)
    filled, traces = infill(model, ROWS, settings, trace=True)
    for row, full, trace in zip(ROWS, filled, traces, strict=True):
        assert MASK not in full
        assert [old if old != M else new for old, new in zip(row, full, strict=True)] == full
        assert trace.positions.tolist() == [at for at, token in enumerate(row) if token == M]
        if len(trace.states):
            assert trace.states[-1].tolist() == [full[at] for at in trace.positions]
    assert filled == infill(model, ROWS, settings, batch_size=2)
    for number, row in enumerate(ROWS):
        assert infill(model, [row], settings, numbers=[number]) == [filled[number]]


def test_rows_of_nothing_but_masks_are_written_in_any_company(model: Backbone):
    """By random order: in such a row all positions are equal, and rounding would decide."""
    rows = [*ROWS, [M] * 2, [M] * 6, [M], [M] * 12]
    settings = DecodingSection(confidence="random", temperature=1.0, block_length=3)
    filled = infill(model, rows, settings)
    assert filled == infill(model, rows, settings, batch_size=3)
    for number, row in enumerate(rows):
        assert infill(model, [row], settings, numbers=[number]) == [filled[number]]


def test_masks_at_the_end_are_a_response(model: Backbone):
    prompts = [[1, 2, 3], [4]]
    settings = DecodingSection(response_length=6, block_length=3, stop_at_eos=False)
    rows = [[*prompt, *[M] * 6] for prompt in prompts]
    responses = generate(model, prompts, settings)
    assert infill(model, rows, settings) == [
        prompt + response for prompt, response in zip(prompts, responses, strict=True)
    ]


def test_blocks_divide_the_masks_in_their_order(model: Backbone):
    _, (trace,) = infill(model, [ROWS[0]], DecodingSection(block_length=2), trace=True)
    written = [(state != MASK).tolist() for state in trace.states]
    assert written[1] == [True, True, False, False]
    assert trace.positions.tolist() == [1, 3, 4, 6]
    assert torch.equal(trace.start, torch.full((4,), MASK))


def test_what_cannot_be_is_refused(model: Backbone):
    with pytest.raises(ConfigurationError, match="cannot infill"):
        infill(tiny_model(replace(SHAPE, causal=True)), ROWS, DecodingSection())
    with pytest.raises(ConfigurationError, match=r"steps 3 .* 2 blocks .*4 tokens"):
        infill(model, ROWS[:1], DecodingSection(block_length=2, steps=3))
