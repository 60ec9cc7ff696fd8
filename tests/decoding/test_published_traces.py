"""Traces of the published samplers, token for token at every step."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from raymdm.config.decoding import DecodingSection
from raymdm.decoding import Trace, generate
from raymdm.models import Backbone, load_model

FIXTURES = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures"
DREAM = {"maskgit_plus": "probability", "entropy": "entropy", "topk_margin": "margin"}


def cases(name: str) -> list[Any]:
    path = FIXTURES / "decoding" / f"{name}.json"
    if not path.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason="no published traces here"))]
    return [pytest.param(case, id=case["name"]) for case in json.loads(path.read_text())["cases"]]


@pytest.fixture(scope="module")
def llada() -> Backbone:
    return load_model(FIXTURES / "llada_tiny")


@pytest.fixture(scope="module")
def dream() -> Backbone:
    return load_model(FIXTURES / "dream_tiny")


def same_at_every_step(model: Backbone, case: dict[str, Any], **keys: Any) -> list[Trace]:
    """The traces, once they are found to be the published one; without one the text is the same."""
    padded = case["prompt_ids"]
    attention = case["attention_mask"] or [[1] * len(prompt) for prompt in padded]
    prompts = [
        [token for token, real in zip(prompt, reals, strict=True) if real]
        for prompt, reals in zip(padded, attention, strict=True)
    ]
    settings = DecodingSection(steps=case["steps"], stop_at_eos=False, **keys)
    responses, traces = generate(model, prompts, settings, trace=True)
    width = len(padded[0])
    wanted = [[row[width:] for row in step] for step in case["sequences"]]
    assert torch.stack([trace.states for trace in traces], 1).tolist() == wanted
    assert responses == [row[width:] for row in case["final_ids"]]
    assert responses == generate(model, prompts, settings)
    return traces


@pytest.mark.parametrize("case", cases("llada_generate"))
def test_llada(llada: Backbone, case: dict[str, Any]):
    same_at_every_step(
        llada,
        case,
        response_length=case["gen_length"],
        block_length=case["block_length"],
        guidance=case["cfg_scale"],
    )


@pytest.mark.parametrize("case", cases("dream_generate"))
def test_dream(dream: Backbone, case: dict[str, Any]):
    same_at_every_step(
        dream,
        case,
        response_length=case["max_new_tokens"],
        schedule="remaining",
        confidence=DREAM[case["alg"]],
    )


@pytest.mark.parametrize("case", cases("mdpo_rcr"))
def test_rcr(llada: Backbone, case: dict[str, Any]):
    keys = {"response_length": case["gen_length"], "schedule": case["mode"]}
    (trace,) = same_at_every_step(llada, case, remasking="last", **keys)
    assert trace.predictions.tolist() == [step[0] for step in case["decoded_completion"]]
    running = torch.zeros(case["gen_length"])
    for confidence, wanted in zip(trace.confidence, case["running_confidence"], strict=True):
        running = torch.where(confidence.isnan(), running, confidence)
        torch.testing.assert_close(running, torch.tensor(wanted), atol=3e-6, rtol=0)
    if case["running_maximum_rule_gives_same_trace"]:
        same_at_every_step(llada, case, remasking="running_max", **keys)
    else:
        with pytest.raises(AssertionError):
            same_at_every_step(llada, case, remasking="running_max", **keys)
