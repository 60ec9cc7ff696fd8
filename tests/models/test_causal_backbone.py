"""The causal backbone: logits[:, i] predict token i from the tokens before it and from no other."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raymdm.config.model import ModelSection
from raymdm.models import Backbone, ModelShape, SpecialTokens, build_model
from raymdm.models.initial import shape_from_config
from raymdm.models.rotary import rotary, rotate

EOS, PAD = 21, 23
SHAPE = ModelShape(
    vocabulary_size=24,
    hidden_size=16,
    layers=2,
    heads=4,
    key_value_heads=2,
    intermediate_size=32,
    mask_token_id=22,
    eos_token_id=EOS,
    pad_token_id=PAD,
    causal=True,
)
ROW = torch.tensor([[3, 4, 5, 6, 7, 8, 9]])


@pytest.fixture(scope="module")
def model() -> Backbone:
    return build_model(SHAPE, 0, 0.5).double()


def moved(model: Backbone, position: int) -> list[bool]:
    """Where the logits change when the token at `position` does."""
    changed = ROW.clone()
    changed[0, position] = 15
    difference = (model(ROW) - model(changed)).abs().amax(-1)[0]
    return (difference > 1e-6).tolist()


@pytest.mark.parametrize("position", range(7))
def test_a_token_moves_the_predictions_after_it_and_no_other(model: Backbone, position: int):
    assert moved(model, position) == [False] * (position + 1) + [True] * (6 - position)


def plain(model: Backbone, ids: list[int]) -> Tensor:
    """Logits of the next token after `ids`, written out: one query, explicit weights."""
    shape = model.shape
    x = model.embedding(torch.tensor([ids]))
    rotation = rotary(len(ids), shape, x)
    for block in model.blocks:
        attention, normed = block.attention, block.attention_norm(x)
        heads = [
            layer(normed).unflatten(-1, (-1, attention.head_width)).transpose(1, 2)
            for layer in (attention.query, attention.key, attention.value)
        ]
        groups = shape.heads // shape.key_value_heads
        query, key = rotate(heads[0], rotation), rotate(heads[1], rotation)
        key, value = (part.repeat_interleave(groups, 1) for part in (key, heads[2]))
        scores = query @ key.transpose(-1, -2) / attention.head_width**0.5
        for later in range(len(ids)):
            scores[..., later, later + 1 :] = -torch.inf
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        x = x + attention.output(mixed)
        hidden = block.mlp_norm(x)
        x = x + block.down(functional.silu(block.gate(hidden)) * block.up(hidden))
    return model.head(model.norm(x))[0, -1]


def test_it_equals_the_plain_computation_token_by_token(model: Backbone):
    tokens = ROW[0].tolist()
    wanted = torch.stack([plain(model, [EOS, *tokens[:i]]) for i in range(len(tokens))])
    torch.testing.assert_close(model(ROW)[0], wanted, rtol=1e-9, atol=1e-9)


def test_selected_positions_are_those_of_the_full_logits(model: Backbone):
    select = torch.tensor([[True, False, True, True, False, False, True]])
    # A product rounds by its number of rows on some processors: not bit for bit.
    torch.testing.assert_close(
        model(ROW, select=select), model(ROW)[select], rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("filler", [PAD, EOS, 5])
def test_padding_on_any_side_changes_nothing(model: Backbone, side: str, filler: int):
    left = 4 if side in ("left", "both") else 0
    right = 3 if side in ("right", "both") else 0
    ids = functional.pad(ROW, (left, right), value=filler)
    attention = functional.pad(torch.ones_like(ROW), (left, right))
    ids = torch.cat([ids, torch.randint(24, ids.shape)])  # a neighbour without padding
    attention = torch.cat([attention, torch.ones_like(attention)])
    logits = model(ids, attention)
    torch.testing.assert_close(logits[0, left : left + 7], model(ROW)[0], rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(logits[1:], model(ids[1:]), rtol=1e-7, atol=1e-7)


def test_a_token_hidden_inside_a_row_is_not_read_and_hides_no_other(model: Backbone):
    attention = torch.ones_like(ROW)
    attention[0, 3] = 0
    wanted = model(ROW, attention)[0]
    for position, moves in ((3, False), (2, True)):
        changed = ROW.clone()
        changed[0, position] = 15
        difference = (model(changed, attention)[0] - wanted).abs().amax(-1)
        assert ((difference[4:] > 1e-6) == moves).all()


def test_the_gradient_does_not_depend_on_padding_either(model: Backbone):
    gradients = []
    for left in (0, 4):
        ids = functional.pad(ROW, (left, 0), value=PAD)
        real = functional.pad(torch.ones_like(ROW), (left, 0)).bool()
        loss = functional.cross_entropy(model(ids, real, select=real), ROW[0])
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    for one, other in zip(*gradients, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_the_weights_of_a_seed_are_those_of_the_bidirectional_model(model: Backbone):
    other = build_model(replace(SHAPE, causal=False), 0, 0.5).double()
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )
    assert not torch.allclose(model(ROW), other(ROW), atol=1e-3)


def test_a_shape_is_causal_only_if_asked():
    special = SpecialTokens(mask_token_id=2, eos_token_id=1, pad_token_id=0)
    for causal in (False, True):
        shape = shape_from_config(ModelSection(), vocabulary_size=9, causal=causal, tokens=special)
        assert shape.causal == causal
    assert not shape_from_config(ModelSection(), vocabulary_size=9, tokens=special).causal
