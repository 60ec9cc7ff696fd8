"""Running confidence remasking (RCR), against a plain loop over the rules."""

from typing import Any

import pytest
import torch
from torch import Tensor
from written import MASK, Fixed, tiny_model

from raymdm.config.decoding import DecodingSection
from raymdm.decoding import block_schedules, generate
from raymdm.models import Backbone

PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8, 9], [10, 11, 12, 13]]


@pytest.fixture(scope="module")
def model() -> Backbone:
    return tiny_model()


def settings_of(rule: str, **keys: Any) -> DecodingSection:
    return DecodingSection.model_validate({"response_length": 12, "remasking": rule, **keys})


@torch.no_grad()
def plain(model: Backbone, prompt: list[int], settings: DecodingSection) -> list[list[int]]:
    """The states of one row, by lists and loops."""
    length, start = 12, len(prompt)
    ids = prompt + [MASK] * length
    kept: dict[int, float] = {}
    states, end = [], 0
    for counts in block_schedules(settings, length):
        end, left = end + sum(counts), sum(counts)
        for count in counts:
            logits: Tensor = model(torch.tensor([ids]))[0]
            for slot in range(end):
                if ids[start + slot] == MASK:
                    share = logits[start + slot].softmax(-1)
                    share[MASK], own = 0, share.clone()
                    ids[start + slot] = int(share.argmax())
                    confidence = float(own[ids[start + slot]])
                    if settings.remasking == "running_max":
                        confidence = max(confidence, kept.get(slot, 0.0))
                    kept[slot] = confidence
            left -= count
            order = sorted(range(end), key=lambda slot: (-kept[slot], slot))
            for slot in order[end - left :]:
                ids[start + slot] = MASK
            states.append(ids[start:])
    return states


@pytest.mark.parametrize("rule", ["running_max", "last"])
@pytest.mark.parametrize(
    "keys",
    [{"steps": 6}, {"steps": 8, "block_length": 6, "schedule": "cosine"}, {"block_length": 5}],
)
def test_it_is_the_plain_loop(model: Backbone, rule: str, keys: dict[str, Any]):
    settings = settings_of(rule, **keys)
    _, traces = generate(model, PROMPTS, settings, trace=True)
    for prompt, trace in zip(PROMPTS, traces, strict=True):
        assert trace.states.tolist() == plain(model, prompt, settings)


def test_the_rules_differ_and_tokens_are_rewritten(model: Backbone):
    found = [
        generate(model, PROMPTS, settings_of(rule, steps=6), trace=True)[1]
        for rule in ("running_max", "last")
    ]
    assert any(not torch.equal(one.states, other.states) for one, other in zip(*found, strict=True))
    again = [(trace.inputs != MASK) & (trace.states == MASK) for trace in found[1]]
    assert any(slots.any() for slots in again)


@pytest.mark.parametrize("saturated", [False, True])
@pytest.mark.parametrize(
    "keys",
    [{}, {"top_p": 0.5, "temperature": 1.0}, {"top_k": 1, "temperature": 0.1, "block_length": 4}],
)
def test_the_counts_are_exact_and_nothing_stays_masked(
    model: Backbone, saturated: bool, keys: dict[str, Any]
):
    """Where every probability is exactly 1 too, as the prompt's would be to a careless rule."""
    logits = torch.zeros(24)
    logits[6] = 500.0
    settings = settings_of("last", steps=6, **keys)
    used = Fixed(logits) if saturated else model
    responses, traces = generate(used, PROMPTS, settings, trace=True)
    block = settings.block_length or 12
    wanted, rest = [], 12
    for counts in block_schedules(settings, 12):
        for count in counts:
            rest -= count
            wanted.append(rest)
    for prompt, response, trace in zip(PROMPTS, responses, traces, strict=True):
        assert (trace.states == MASK).sum(-1).tolist() == wanted
        assert trace.positions.tolist() == list(range(len(prompt), len(prompt) + 12))
        assert MASK not in response
        for step, state in enumerate(trace.states):
            end = (step * len(wanted) // len(wanted) // (6 * block // 12) + 1) * block
            assert (state[end:] == MASK).all()  # nothing is written beyond the block
        if saturated:
            assert response == [6] * 12
            assert torch.equal(trace.states[0] == MASK, torch.arange(12) >= 12 - wanted[0])


def test_an_eos_is_the_first_to_be_masked_again_where_it_comes_last():
    table = torch.zeros(24)
    table[21], table[3] = 9.0, 1.0
    both = table.repeat(6, 1)
    both[3, 21] = 0.0  # the slot that is sure of no EOS
    settings = DecodingSection(response_length=4, steps=4, remasking="last", eos="last")
    _, (trace,) = generate(Fixed(both), [[1, 2]], settings, trace=True)
    assert (trace.states[0] != MASK).nonzero()[:, 0].tolist() == [1]


def test_it_never_stops_at_an_eos(model: Backbone):
    """Before it, tokens may still be masked again."""
    logits = torch.zeros(24)
    logits[21] = 9.0
    _, (trace,) = generate(Fixed(logits), [[1]], settings_of("last", steps=6), trace=True)
    assert len(trace.states) == 6
