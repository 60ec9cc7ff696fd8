"""Left-to-right decoding that keeps keys and values: a plain loop's tokens, for any batch."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from written import EOS, MASK, PAD
from written import SHAPE as MASKED

from raymdm.config.decoding import DecodingSection
from raymdm.decoding import Trace, check_decoding, generate
from raymdm.decoding.sampling import draw
from raymdm.errors import ConfigurationError
from raymdm.models import Backbone, KeyValueCache, build_model
from raymdm.randomness import generator

SHAPE = replace(MASKED, key_value_heads=2, causal=True)
PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8, 9], [10, 11, 12, 13], [], [14], [2, 4]]
LENGTH = 9
GREEDY = DecodingSection(response_length=LENGTH)
DRAWN: list[dict[str, Any]] = [
    {"temperature": 0.7},
    {"temperature": 1.0, "sampling": "categorical", "seed": 5},
    {"temperature": 1.3, "top_p": 0.6},
    {"temperature": 1.3, "top_k": 3, "sampling": "categorical"},
]


def with_length(keys: dict[str, Any]) -> DecodingSection:
    return DecodingSection(response_length=LENGTH, **keys)


@pytest.fixture(scope="module")
def model() -> Backbone:
    return build_model(SHAPE, 8, 0.8).double()


def plain(
    model: Backbone, prompt: list[int], settings: DecodingSection, number: int = 0, rollout: int = 0
) -> list[int]:
    """One row, token by token, each from a whole forward; nothing is kept."""
    ids = list(prompt)
    for step in range(LENGTH):
        logits = model(torch.tensor([[*ids, 0]]))[0, -1:].detach().clone()
        logits[:, MASK] = -torch.inf
        if settings.eos == "never":
            logits[:, EOS] = -torch.inf
        noise = generator(settings.seed, "decode", number, rollout, step).random(LENGTH)[step]
        ids.append(int(draw(logits, settings, torch.tensor([noise]))))
        if ids[-1] == EOS and settings.stop_at_eos:
            return ids[len(prompt) :] + [EOS] * (LENGTH - step - 1)
    return ids[len(prompt) :]


def test_it_equals_a_plain_loop(model: Backbone):
    responses = generate(model, PROMPTS, GREEDY)
    assert responses == [plain(model, prompt, GREEDY) for prompt in PROMPTS]
    # Rows that end at different steps, and one that does not end: the cases that matter.
    ends = [row.index(EOS) if EOS in row else None for row in responses]
    assert None in ends
    assert len(set(ends)) >= 3


@pytest.mark.parametrize("keys", [*DRAWN, {"stop_at_eos": False}, {"eos": "never"}])
def test_it_equals_a_plain_loop_that_samples(model: Backbone, keys: dict[str, Any]):
    settings = with_length(keys)
    numbers = [7, 3, 11, 0, 2, 5]
    responses = generate(model, PROMPTS, settings, numbers=numbers, rollout=2)
    assert responses == [
        plain(model, prompt, settings, number, 2)
        for prompt, number in zip(PROMPTS, numbers, strict=True)
    ]
    assert responses != generate(model, PROMPTS, GREEDY)


@pytest.mark.parametrize("keys", [{}, *DRAWN])
def test_the_batch_changes_nothing(model: Backbone, keys: dict[str, Any]):
    settings, numbers = with_length(keys), list(range(len(PROMPTS)))
    together = generate(model, PROMPTS, settings)
    for size in (1, 2, 4):
        assert generate(model, PROMPTS, settings, batch_size=size) == together
    turned = generate(model, PROMPTS[::-1], settings, numbers=numbers[::-1])
    assert turned == together[::-1]


def test_noise_is_of_its_address(model: Backbone):
    settings = with_length({"temperature": 1.5})
    first = generate(model, PROMPTS, settings)
    assert generate(model, PROMPTS, settings, rollout=1) != first
    assert generate(model, PROMPTS, with_length({"temperature": 1.5, "seed": 1})) != first
    assert generate(model, PROMPTS, with_length({"temperature": 1.5, "top_k": 1})) == generate(
        model, PROMPTS, GREEDY
    )


def test_every_step_writes_one_token_of_each_row_until_its_eos(model: Backbone):
    responses, traces = generate(model, PROMPTS, GREEDY, trace=True)
    assert responses == generate(model, PROMPTS, GREEDY)
    for prompt, response, trace in zip(PROMPTS, responses, traces, strict=True):
        final = torch.tensor(response)
        steps = response.index(EOS) + 1 if EOS in response else LENGTH
        assert trace.states.shape == (steps, LENGTH)
        assert (trace.start == MASK).all()
        for step, state in enumerate(trace.states):
            written = LENGTH if EOS in response[: step + 1] else step + 1
            assert torch.equal(state[:written], final[:written])
            assert (state[written:] == MASK).all()
        assert torch.equal(trace.predictions, trace.states)
        assert trace.positions.tolist() == list(range(len(prompt), len(prompt) + LENGTH))
        check_confidence(model, prompt, response, trace)


def check_confidence(model: Backbone, prompt: list[int], response: list[int], trace: Trace) -> None:
    """The probability of the token that a step wrote, and of no other."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *response]]))[0, len(prompt) :]
    steps = torch.arange(len(trace.states))
    wanted = logits.softmax(-1)[steps, torch.tensor(response)[steps]].float()
    torch.testing.assert_close(trace.confidence[steps, steps], wanted)
    assert trace.confidence.isnan().sum() == trace.confidence.numel() - len(steps)


def test_every_step_can_be_watched(model: Backbone):
    seen: list[tuple[list[int], Tensor]] = []
    _, traces = generate(
        model, PROMPTS, GREEDY, trace=True, batch_size=4, watch=lambda *step: seen.append(step)
    )
    assert sum(len(rows) for rows, _ in seen) == sum(len(trace.states) for trace in traces)
    for row, trace in enumerate(traces):
        shown = [state[rows.index(row)] for rows, state in seen if row in rows]
        assert torch.equal(torch.stack(shown), trace.states)


class Scripted(nn.Module):
    """Writes for every row the token that `script` names by (row's prompt, position)."""

    shape = SHAPE

    def __init__(self, script: dict[int, list[int]]) -> None:
        super().__init__()
        self.script = script
        self.sizes: list[tuple[int, int, int]] = []
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        select: Tensor,
        cache: KeyValueCache,
        columns: slice,
    ) -> Tensor:
        assert input_ids.shape == (cache.rows, cache.length)
        self.sizes.append((len(input_ids), columns.start, columns.stop))
        cache.write(columns, columns.stop)
        logits = torch.zeros(len(input_ids), 24)
        for row, ids in enumerate(input_ids.tolist()):
            padding = sum(token == PAD for token in ids)
            if attention_mask is not None:
                assert attention_mask[row].tolist() == [token != PAD for token in ids]
            assert select[row].tolist() == [False] * (columns.stop - columns.start - 1) + [True]
            # The prompt has one token.
            logits[row, self.script[ids[padding]][columns.stop - padding - 2]] = 2.0
        logits[:, MASK] = 50.0
        return logits


def test_a_row_that_has_ended_is_not_computed_any_more():
    model = Scripted({1: [5, EOS], 2: [6, 7, 8, EOS], 3: [EOS]})
    settings = DecodingSection(response_length=12)
    responses, traces = generate(model, [[1], [2], [3]], settings, trace=True)
    assert responses == [[5] + [EOS] * 11, [6, 7, 8] + [EOS] * 9, [EOS] * 12]
    assert [len(trace.states) for trace in traces] == [2, 4, 1]
    # After the prompts one column a step.
    assert model.sizes == [(3, 0, 2), (2, 2, 3), (1, 3, 4), (1, 4, 5)]


def test_padding_that_no_row_needs_any_more_is_dropped(model: Backbone):
    lengths = []
    watched = torch.nn.Module.register_forward_pre_hook(
        model, lambda _, given, keys: lengths.append(keys["cache"].length), with_kwargs=True
    )
    responses = generate(model, PROMPTS, GREEDY)
    watched.remove()
    longest = max(len(p) for p, row in zip(PROMPTS, responses, strict=True) if EOS not in row)
    assert lengths[0] == max(map(len, PROMPTS)) + LENGTH
    assert lengths[-1] == longest + LENGTH < lengths[0]


def test_the_mask_token_is_never_written():
    model = Scripted({1: [5, 6, 7]})
    assert generate(model, [[1]], DecodingSection(response_length=3)) == [[5, 6, 7]]


@pytest.mark.parametrize(
    ("name", "value", "usual"),
    [
        ("steps", 2, "null"),
        ("block_length", 2, "null"),
        ("schedule", "cosine", "even"),
        ("schedule_power", 3.0, "2.0"),
        ("confidence", "margin", "probability"),
        ("threshold", 0.9, "null"),
        ("remasking", "last", "none"),
        ("guidance", 1.0, "0.0"),
        ("eos", "last", "free"),
        ("cache", "dual", "none"),
    ],
)
def test_settings_of_a_masked_models_decoding_are_refused(
    model: Backbone, name: str, value: Any, usual: str
):
    settings = DecodingSection(response_length=4, **{name: value})
    for refuse in (
        lambda: generate(model, PROMPTS, settings),
        lambda: check_decoding(settings, causal=True),
    ):
        with pytest.raises(ConfigurationError, match=rf"{name} means nothing .*{name} to {usual}$"):
            refuse()
    check_decoding(settings, causal=False)


@pytest.mark.parametrize("causal", [False, True])
def test_a_response_length_is_needed_by_either_kind(causal: bool):
    with pytest.raises(ConfigurationError, match="response_length"):
        check_decoding(DecodingSection(), causal=causal)


def test_left_to_right_decoding_needs_no_gradient(model: Backbone):
    generate(model, [[1]], DecodingSection(response_length=2))
    assert all(parameter.grad is None for parameter in model.parameters())
