"""Blocks whose surroundings are computed once."""

from typing import Any

import pytest
import torch
from torch import Tensor
from written import MASK, SHAPE, tiny_model

from raymdm.config.decoding import DecodingSection
from raymdm.decoding import generate, infill
from raymdm.errors import ConfigurationError
from raymdm.models import Backbone, KeyValueCache, ModelShape

PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8, 9], [10, 11, 12, 13]]
NEXT = ModelShape(**{**vars(SHAPE), "predicts_next": True, "family": "dream"})
LENGTH, BLOCK = 9, 4


@pytest.fixture(scope="module", params=[SHAPE, NEXT], ids=["in place", "predicts next"])
def model(request: pytest.FixtureRequest) -> Backbone:
    return tiny_model(request.param)


def settings_of(cache: str, **keys: Any) -> DecodingSection:
    given = {"response_length": LENGTH, "block_length": BLOCK, "stop_at_eos": False}
    return DecodingSection.model_validate({**given, "cache": cache, **keys})


@torch.no_grad()
def plain(model: Backbone, prompt: list[int], cache: str) -> list[list[int]]:
    """The states of one row, a token a step: the definition, on the backbone's own cache."""
    start = len(prompt)
    ids = torch.tensor([prompt + [MASK] * LENGTH])
    states = []
    for first in range(0, LENGTH, BLOCK):
        end = min(first + BLOCK, LENGTH)
        kept = KeyValueCache(model.shape, 1, start + LENGTH, model.embedding.weight)
        for step in range(end - first):
            columns = slice(0, start + LENGTH)
            if step:
                columns = slice(start + first, start + (end if cache == "dual" else LENGTH))
            logits: Tensor = model(ids, cache=kept, columns=columns)[0].softmax(-1)
            share = torch.zeros(start + LENGTH, logits.shape[1]).double()
            share[columns] = logits
            share[:, MASK] = 0
            best = [
                (-float(share[start + slot].max()), slot)
                for slot in range(first, end)
                if ids[0, start + slot] == MASK
            ]
            slot = min(best)[1]
            ids[0, start + slot] = share[start + slot].argmax()
            states.append(ids[0, start:].tolist())
    return states


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_every_step_is_as_defined(model: Backbone, cache: str):
    _, traces = generate(model, PROMPTS, settings_of(cache), trace=True)
    for prompt, trace in zip(PROMPTS, traces, strict=True):
        assert trace.states.tolist() == plain(model, prompt, cache)


def test_the_definitions_differ(model: Backbone):
    found = [generate(model, PROMPTS, settings_of(cache)) for cache in ("none", "prefix", "dual")]
    assert found[0] != found[1] != found[2] != found[0]


@pytest.mark.parametrize("cache", ["prefix", "dual"])
@pytest.mark.parametrize("keys", [{}, {"guidance": 1.0}, {"temperature": 1.0}])
def test_a_block_of_one_step_is_exact(model: Backbone, cache: str, keys: dict[str, Any]):
    one_step = generate(model, PROMPTS, settings_of(cache, steps=3, **keys))
    assert one_step == generate(model, PROMPTS, settings_of("none", steps=3, **keys))


def test_the_trace_of_a_dual_cache_knows_the_whole_text_but_is_sure_of_the_block_only(
    model: Backbone,
):
    _, traces = generate(model, PROMPTS, settings_of("dual"), trace=True)
    for trace in traces:
        assert (trace.predictions != MASK).all()
        masked = trace.inputs == MASK
        predicted = ~trace.confidence.isnan()
        assert torch.equal(predicted[0], masked[0])
        assert torch.equal(predicted[1, :BLOCK], masked[1, :BLOCK])
        assert not predicted[1, BLOCK:].any()
        assert torch.equal(trace.predictions[1, BLOCK:], trace.predictions[0, BLOCK:])


def test_what_cannot_go_together_is_refused(model: Backbone):
    with pytest.raises(ConfigurationError, match="infill with cache: none"):
        infill(model, [[1, MASK]], settings_of("dual"))
    with pytest.raises(ValueError, match="goes with neither"):
        settings_of("dual", remasking="last")
