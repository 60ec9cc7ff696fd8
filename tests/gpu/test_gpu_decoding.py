"""Decoding on a GPU writes what it writes on the CPU: noise is addressed, not drawn there."""

import copy
from typing import Any

import pytest
import torch
from device import GPU, MASK, ON_GPU, small_model

from raymdm.config.decoding import DecodingSection
from raymdm.decoding import generate, infill

pytestmark = ON_GPU

PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8, 9], [10, 11, 12, 13]]
LENGTH = {"response_length": 12, "block_length": 4}
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "few steps": {"steps": 6},
    "one block": {"block_length": None, "steps": 5, "schedule": "cosine"},
    "prefix cache": {"cache": "prefix"},
    "dual cache": {"cache": "dual"},
    "threshold": {"threshold": 0.6, "cache": "dual"},
    "margin": {"confidence": "margin"},
    "entropy": {"confidence": "entropy"},
    "random order": {"confidence": "random"},
    "gumbel": {"temperature": 0.7},
    "categorical": {"temperature": 0.7, "sampling": "categorical", "top_p": 0.9},
    "top k": {"temperature": 0.7, "sampling": "categorical", "top_k": 5},
    "guidance": {"guidance": 1.0},
    "remasking": {"remasking": "running_max", "block_length": None, "steps": 6},
    "remasking by the last": {"remasking": "last", "block_length": None, "steps": 6},
    "EOS last": {"eos": "last"},
    "EOS never": {"eos": "never"},
}
KINDS: dict[str, dict[str, Any]] = {
    "in place": {},
    "predicts next": {"predicts_next": True, "family": "dream"},
    "grouped queries": {"key_value_heads": 2},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SETTINGS)
def test_tokens_are_those_of_the_cpu(name: str, kind: str) -> None:
    model = small_model(**KINDS[kind]).double().eval()
    settings = DecodingSection.model_validate({**LENGTH, **SETTINGS[name]})
    on_gpu = copy.deepcopy(model).to(GPU)
    assert generate(on_gpu, PROMPTS, settings) == generate(model, PROMPTS, settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
def test_the_fast_kernels_of_a_gpu_decode_too(cache: str, dtype: torch.dtype) -> None:
    model = small_model(key_value_heads=2).eval()
    settings = DecodingSection.model_validate({**LENGTH, "cache": cache})
    found = generate(copy.deepcopy(model).to(GPU, dtype), PROMPTS, settings)
    if dtype == torch.float32:
        assert found == generate(model, PROMPTS, settings)
    assert all(0 <= token < MASK + 2 and token != MASK for row in found for token in row)


def test_a_causal_model_writes_the_same() -> None:
    model = small_model(causal=True).double().eval()
    for temperature in (0.0, 0.7):
        settings = DecodingSection(response_length=8, temperature=temperature)
        on_gpu = copy.deepcopy(model).to(GPU)
        assert generate(on_gpu, PROMPTS, settings) == generate(model, PROMPTS, settings)


def test_gaps_are_filled_with_the_same() -> None:
    model = small_model().double().eval()
    rows = [[1, MASK, 3, MASK, MASK, 6], [MASK, 2, MASK]]
    settings = DecodingSection(temperature=0.5)
    assert infill(copy.deepcopy(model).to(GPU), rows, settings) == infill(model, rows, settings)
