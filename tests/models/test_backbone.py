"""The backbone against itself; `test_published_models.py` has the published logits."""

from dataclasses import asdict, replace

import pytest
import torch

from raymdm.config import load_config
from raymdm.config.model import ModelSection
from raymdm.models import Backbone, ModelShape, SpecialTokens, build_model
from raymdm.models.initial import shape_from_config

SHAPE = ModelShape(
    vocabulary_size=24,
    hidden_size=16,
    layers=2,
    heads=4,
    key_value_heads=4,
    intermediate_size=32,
    mask_token_id=22,
    eos_token_id=21,
    pad_token_id=23,
)
SPECIAL = SpecialTokens(mask_token_id=2, eos_token_id=1, pad_token_id=0)


def parameters(model: Backbone) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_row_does_not_depend_on_how_far_or_with_what_it_is_padded(side: str):
    model = build_model(SHAPE, 0, 0.5).double()
    row = torch.tensor([[3, 22, 7, 11, 22]])
    alone = model(row)
    for width, filler in ((2, 23), (6, 5)):
        padding = torch.full((1, width), filler)
        parts = [padding, row] if side == "left" else [row, padding]
        ids = torch.cat([torch.cat(parts, 1), torch.randint(24, (1, width + 5))])
        attention = torch.ones_like(ids)
        place = slice(width, None) if side == "left" else slice(0, 5)
        attention[0] = 0
        attention[0, place] = 1
        padded = model(ids, attention)[:1, place]
        torch.testing.assert_close(padded, alone, rtol=1e-7, atol=1e-7)


def test_attention_looks_both_ways():
    model = build_model(SHAPE, 0, 0.5)
    base, changed = torch.tensor([[3, 4, 5, 6]]), torch.tensor([[3, 4, 5, 9]])
    assert not torch.allclose(model(base)[0, 0], model(changed)[0, 0], atol=1e-4)


def test_grouped_queries_share_the_heads_of_keys_and_values():
    grouped = build_model(replace(SHAPE, key_value_heads=2), 0, 0.5).double()
    full = Backbone(SHAPE).double()
    state = grouped.state_dict()
    for name, tensor in state.items():
        if name.endswith(("key.weight", "value.weight")):
            assert tensor.shape == (8, 16)
            state[name] = tensor.view(2, 4, 16).repeat_interleave(2, 0).reshape(16, 16)
    full.load_state_dict(state)
    ids = torch.arange(10)[None]
    torch.testing.assert_close(grouped(ids), full(ids), rtol=1e-7, atol=1e-7)


def test_a_double_precision_model_computes_in_double_precision():
    """Norms and rotations too: a float32 step inside would move the logits by about 1e-7."""
    model = build_model(SHAPE, 0, 0.5).double()
    ids = torch.arange(10)[None]
    logits = model(ids)
    assert logits.dtype == torch.float64
    with torch.no_grad():
        model.embedding.weight.mul_(1 + 1e-11)
        moved = (model(ids) - logits).abs().max()
    assert 0 < moved < 1e-9


def test_half_precision_stays_near_single():
    model, ids = build_model(SHAPE, 0, 0.3), torch.arange(12)[None]
    wanted = model(ids)
    logits = model.to(torch.bfloat16)(ids)
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - wanted).std() < 0.03 * wanted.std()


def test_new_weights_are_a_function_of_the_seed():
    one, same, other = (build_model(SHAPE, seed).state_dict() for seed in (0, 0, 1))
    for name, tensor in one.items():
        assert torch.equal(tensor, same[name])
        assert torch.equal(tensor, other[name]) == name.endswith("norm.weight")


def test_the_weights_of_a_seed_are_frozen():
    """A change of these numbers changes every run that was ever recorded."""
    state = build_model(SHAPE, 0).state_dict()
    got = [
        state["embedding.weight"][0, 0],
        state["blocks.1.down.weight"][3, 5],
        state["head.weight"][23, 15],
    ]
    torch.testing.assert_close(
        torch.stack(got), torch.tensor([0.00589863, -0.0189432, 0.02022737]), rtol=1e-4, atol=0
    )


def test_projections_into_the_residual_stream_are_scaled_down_by_the_depth():
    state = build_model(replace(SHAPE, hidden_size=64, intermediate_size=256), 0, 0.1).state_dict()
    for name, wanted in {
        "embedding": 0.1,
        "blocks.0.up": 0.1,
        "blocks.1.down": 0.05,
        "blocks.0.attention.output": 0.05,
    }.items():
        assert state[f"{name}.weight"].std().item() == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize(
    ("name", "vocabulary", "low", "high"),
    [
        ("tiny", 259, 0.08e6, 0.14e6),
        ("5m", 4096, 4.5e6, 5.5e6),
        ("llada-8b", 126464, 7.95e9, 8.05e9),
    ],
)
def test_shipped_sizes_are_what_their_names_say(
    name: str, vocabulary: int, low: float, high: float
):
    section = load_config([f"models/{name}"]).model
    with torch.device("meta"):
        model = Backbone(shape_from_config(section, vocabulary_size=vocabulary, tokens=SPECIAL))
    assert low <= parameters(model) <= high


def test_a_shape_follows_its_section():
    section = ModelSection(hidden_size=80, heads=4, key_value_heads=2, vocabulary_multiple=64)
    shape = shape_from_config(section, vocabulary_size=259, tokens=SPECIAL)
    assert shape.vocabulary_size == 320
    assert shape.intermediate_size == 216  # 8/3 of the width, rounded up to 8
    assert (shape.heads, shape.key_value_heads) == (4, 2)
    plain = shape_from_config(ModelSection(heads=4), vocabulary_size=264, tokens=SPECIAL)
    assert plain == ModelShape(
        vocabulary_size=264,
        hidden_size=64,
        layers=2,
        heads=4,
        key_value_heads=4,
        intermediate_size=176,
        rope_theta=10000.0,
        norm_epsilon=1e-5,
        **asdict(SPECIAL),
    )
