"""Greedy left-to-right decoding: a plain loop's tokens, for any batch, up to EOS."""

import pytest
import torch
from torch import Tensor, nn

from raymdm.config.decoding import DecodingSection
from raymdm.decoding import check_decoding, generate
from raymdm.errors import ConfigurationError
from raymdm.models import Backbone, ModelShape, build_model

EOS, MASK, PAD = 21, 22, 23
SHAPE = ModelShape(
    vocabulary_size=24,
    hidden_size=16,
    layers=2,
    heads=4,
    key_value_heads=4,
    intermediate_size=32,
    mask_token_id=MASK,
    eos_token_id=EOS,
    pad_token_id=PAD,
    causal=True,
)
PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8, 9], [10, 11, 12, 13], [], [14]]
LENGTH = 9


@pytest.fixture(scope="module")
def model() -> Backbone:
    return build_model(SHAPE, 8, 0.8).double()


def plain(model: Backbone, prompt: list[int], length: int) -> list[int]:
    """One row, token by token, from full logits."""
    ids = list(prompt)
    while len(ids) < len(prompt) + length:
        logits = model(torch.tensor([[*ids, 0]]))[0, -1]
        logits[MASK] = -torch.inf
        ids.append(int(logits.argmax()))
        if ids[-1] == EOS:
            ids += [EOS] * (len(prompt) + length - len(ids))
    return ids[len(prompt) :]


def test_it_equals_a_plain_loop(model: Backbone):
    responses = generate(model, PROMPTS, DecodingSection(response_length=LENGTH))
    assert responses == [plain(model, prompt, LENGTH) for prompt in PROMPTS]
    # Rows that end at different steps, and one that does not end: the cases that matter.
    ends = [row.index(EOS) if EOS in row else None for row in responses]
    assert None in ends
    assert len(set(ends)) >= 3


def test_a_batch_of_mixed_lengths_equals_its_prompts_one_by_one(model: Backbone):
    settings = DecodingSection(response_length=LENGTH)
    together = generate(model, PROMPTS, settings)
    assert together == [generate(model, [prompt], settings)[0] for prompt in PROMPTS]
    assert together == generate(model, PROMPTS[::-1], settings)[::-1]


def test_every_step_writes_one_token_of_each_row_until_its_eos(model: Backbone):
    responses, states = generate(
        model, PROMPTS, DecodingSection(response_length=LENGTH), trace=True
    )
    final = torch.tensor(responses)
    for step, state in enumerate(states.responses):
        for row, end in zip(state, final, strict=True):
            written = LENGTH if EOS in end[: step + 1] else step + 1
            assert torch.equal(row[:written], end[:written])
            assert (row[written:] == MASK).all()
    assert torch.equal(states.responses[-1], final)


class Scripted(nn.Module):
    """Writes for every row the token that `script` names by (row's prompt, position)."""

    shape = SHAPE

    def __init__(self, script: dict[int, list[int]]) -> None:
        super().__init__()
        self.script, self.forwards = script, 0
        self.widths: list[int] = []
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, select: Tensor) -> Tensor:
        self.forwards += 1
        self.widths.append(len(input_ids))
        logits = torch.zeros(len(input_ids), 24)
        for row, (ids, position) in enumerate(
            zip(input_ids.tolist(), select.int().argmax(-1).tolist(), strict=True)
        ):
            assert attention_mask[row].sum() == position
            logits[row, self.script[ids[0]][position - 1]] = 2.0
        logits[:, MASK] = 50.0
        return logits


def test_it_stops_when_every_row_has_its_eos():
    model = Scripted({1: [5, EOS], 2: [6, 7, 8, EOS], 3: [EOS]})
    settings = DecodingSection(response_length=12)
    responses, states = generate(model, [[1], [2], [3]], settings, trace=True)
    assert responses == [[5] + [EOS] * 11, [6, 7, 8] + [EOS] * 9, [EOS] * 12]
    assert len(states.responses) == model.forwards == 4
    assert model.widths == [3, 2, 1, 1]  # a row that has ended is not computed any more


def test_the_mask_token_is_never_written():
    model = Scripted({1: [5, 6, 7]})
    assert generate(model, [[1]], DecodingSection(response_length=3)) == [[5, 6, 7]]


@pytest.mark.parametrize("setting", ["steps", "block_length"])
def test_settings_of_a_masked_models_decoding_are_refused(model: Backbone, setting: str):
    settings = DecodingSection(response_length=4, **{setting: 2})
    for refuse in (
        lambda: generate(model, PROMPTS, settings),
        lambda: check_decoding(settings, causal=True),
    ):
        with pytest.raises(ConfigurationError, match=f"decoding.{setting} means nothing"):
            refuse()
    check_decoding(settings, causal=False)


@pytest.mark.parametrize("causal", [False, True])
def test_a_response_length_is_needed_by_either_kind(causal: bool):
    with pytest.raises(ConfigurationError, match="response_length"):
        check_decoding(DecodingSection(), causal=causal)


def test_left_to_right_decoding_needs_no_gradient(model: Backbone):
    generate(model, [[1]], DecodingSection(response_length=2))
    assert all(parameter.grad is None for parameter in model.parameters())
