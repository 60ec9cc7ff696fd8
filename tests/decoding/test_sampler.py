"""Greedy low-confidence decoding: the published traces, and what must hold for any model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raymdm.config.decoding import DecodingSection
from raymdm.decoding import generate
from raymdm.decoding.sampler import reveal
from raymdm.models import Backbone, ModelShape, build_model, load_model

FIXTURES = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures"
PUBLISHED = FIXTURES / "decoding" / "llada_generate.json"
MASK, PAD = 22, 23
SHAPE = ModelShape(
    vocabulary_size=24,
    hidden_size=16,
    layers=2,
    heads=4,
    key_value_heads=4,
    intermediate_size=32,
    mask_token_id=MASK,
    eos_token_id=21,
    pad_token_id=PAD,
)
PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8, 9], [10, 11, 12, 13]]


@pytest.fixture(scope="module")
def model() -> Backbone:
    return build_model(SHAPE, 1, 0.8).double()


def published_cases() -> list[Any]:
    if not PUBLISHED.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason="no published traces here"))]
    cases = json.loads(PUBLISHED.read_text())["cases"]
    return [pytest.param(case, id=case["name"]) for case in cases if case["cfg_scale"] == 0]


@pytest.mark.parametrize("case", published_cases())
def test_it_writes_the_published_tokens_step_by_step(case: dict[str, Any]):
    padded = case["prompt_ids"]
    attention = case["attention_mask"] or [[1] * len(prompt) for prompt in padded]
    prompts = [
        [token for token, real in zip(prompt, reals, strict=True) if real]
        for prompt, reals in zip(padded, attention, strict=True)
    ]
    settings = DecodingSection(
        response_length=case["gen_length"], block_length=case["block_length"], steps=case["steps"]
    )
    responses, trace = generate(load_model(FIXTURES / "llada_tiny"), prompts, settings, trace=True)
    width = len(padded[0])
    wanted = [[row[width:] for row in step] for step in case["sequences"]]
    assert [state.tolist() for state in trace.responses] == wanted
    assert responses == [row[width:] for row in case["final_ids"]]


@pytest.mark.parametrize(("block", "steps"), [(None, None), (4, 12), (5, 6), (12, 3), (3, 40)])
def test_every_step_reveals_its_share_and_nothing_is_ever_rewritten(
    model: Backbone, block: int | None, steps: int | None
):
    settings = DecodingSection(response_length=12, block_length=block, steps=steps)
    responses, trace = generate(model, PROMPTS, settings, trace=True)
    assert len(trace.responses) == (steps or 12)
    before = torch.full((3, 12), MASK)
    for state in trace.responses:
        kept = before != MASK
        assert (state[kept] == before[kept]).all()
        assert len(set((state != MASK).sum(-1).tolist())) == 1
        before = state
    assert before.tolist() == responses
    assert (before != MASK).all()


def test_blocks_are_finished_from_left_to_right(model: Backbone):
    settings = DecodingSection(response_length=10, block_length=4, steps=6)  # blocks of 4, 4, 2
    _, trace = generate(model, PROMPTS, settings, trace=True)
    done = [(state != MASK) for state in trace.responses]
    for index, state in enumerate(done):
        block = index // 2
        assert state[:, : 4 * block].all()
        assert not state[:, 4 * (block + 1) :].any()
    assert [int(state[0].sum()) for state in done] == [2, 4, 6, 8, 9, 10]


def test_a_batch_of_mixed_lengths_equals_its_prompts_one_by_one(model: Backbone):
    settings = DecodingSection(response_length=8, block_length=4, steps=4)
    together = generate(model, PROMPTS, settings)
    assert together == [generate(model, [prompt], settings)[0] for prompt in PROMPTS]
    assert len({tuple(response) for response in together}) == 3


def test_a_step_writes_the_block_only_and_leaves_the_prompt_alone(model: Backbone):
    ids = torch.tensor([[PAD, 1, MASK, 3, *[MASK] * 6], [4, 5, 6, 7, *[MASK] * 6]])
    attention = torch.ones_like(ids).bool()
    attention[0, 0] = False
    before = ids.clone()
    reveal(model, ids, attention, slice(4, 7), 2)
    outside = [0, 1, 2, 3, 7, 8, 9]
    assert torch.equal(ids[:, outside], before[:, outside])
    assert ((ids[:, 4:7] == MASK).sum(-1) == 1).all()


class Fixed(nn.Module):
    """Gives the same logits everywhere, whatever it reads."""

    shape = SHAPE

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, select: Tensor) -> Tensor:
        columns = select.nonzero()[:, 1]
        table = self.logits if self.logits.ndim == 2 else self.logits.expand(99, -1)
        return table[columns]


def test_the_mask_token_is_never_written():
    logits = torch.zeros(24)
    logits[MASK], logits[6] = 50.0, 3.0
    settings = DecodingSection(response_length=5, steps=2)
    assert generate(Fixed(logits), [[1, 2]], settings) == [[6] * 5]


def test_the_most_confident_come_first_and_equals_from_the_left():
    table = torch.zeros(6, 24)
    for column, confidence in enumerate([0.0, 0.0, 1.0, 4.0, 2.0, 4.0]):  # after two prompt tokens
        table[column, 10 + column] = confidence
    settings = DecodingSection(response_length=4)
    _, trace = generate(Fixed(table), [[1, 2]], settings, trace=True)
    written = [(state[0] != MASK).nonzero()[:, 0].tolist() for state in trace.responses]
    assert written == [[1], [1, 3], [1, 2, 3], [0, 1, 2, 3]]
    assert trace.responses[-1].tolist() == [[12, 13, 14, 15]]


def test_decoding_needs_no_gradient(model: Backbone):
    generate(model, [[1]], DecodingSection(response_length=2))
    assert all(parameter.grad is None for parameter in model.parameters())
