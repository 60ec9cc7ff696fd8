"""The cached forward: some columns are computed, the others are attended to as they were."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from raymdm.models import Backbone, Execution, KeyValueCache, ModelShape, build_model
from raymdm.models.rotary import rotary, rotate

LLADA = ModelShape(
    vocabulary_size=24,
    hidden_size=16,
    layers=3,
    heads=4,
    key_value_heads=4,
    intermediate_size=32,
    mask_token_id=22,
    eos_token_id=21,
    pad_token_id=23,
)
SHAPES = {
    "llada": LLADA,
    "dream": replace(LLADA, key_value_heads=2, query_key_value_bias=True, predicts_next=True),
    "qwen3": replace(LLADA, key_value_heads=1, query_key_norm=True, head_size=8, tied_head=True),
    "causal": replace(LLADA, key_value_heads=2, causal=True),
}
BIDIRECTIONAL = ("llada", "dream", "qwen3")
LENGTH = 13
PADDING = {"none": (0, 0, 0), "left": (0, 6, 2), "all": (4, 5, 3)}

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


def model_of(kind: str, dtype: torch.dtype = torch.float64) -> Backbone:
    return build_model(SHAPES[kind], 3, 0.5).to(dtype)


def batch(padding: str = "none", seed: int = 0) -> tuple[Tensor, Tensor]:
    """Ids of three rows, and where they are real."""
    ids = torch.randint(21, (3, LENGTH), generator=torch.Generator().manual_seed(seed))
    left = torch.tensor(PADDING[padding])
    return ids, torch.arange(LENGTH) >= left[:, None]


def new_cache(model: Backbone, ids: Tensor) -> KeyValueCache:
    return KeyValueCache(model.shape, *ids.shape, model.head.weight)


def filled(model: Backbone, ids: Tensor, real: Tensor | None) -> KeyValueCache:
    cache = new_cache(model, ids)
    model(ids, real, cache=cache)
    return cache


def close(ours: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(ours, wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("padding", sorted(PADDING))
@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_all_columns_are_the_plain_forward(kind: str, padding: str):
    model = model_of(kind)
    ids, real = batch(padding)
    close(model(ids, real, cache=new_cache(model, ids))[real], model(ids, real)[real])


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_in_every_precision(kind: str, dtype: torch.dtype, allowed: float):
    model = model_of(kind, dtype)
    ids, real = batch("left")
    cache = new_cache(model, ids)
    assert cache.keys[0].dtype == dtype
    wanted = model(ids, real)
    for columns in (None, slice(5, 9)):
        inside = columns or slice(None)
        logits = model(ids, real, cache=cache, columns=columns)[real[:, inside]].float()
        want = wanted[:, inside][real[:, inside]].float()
        assert (logits - want).abs().max() <= allowed * want.std()


@pytest.mark.parametrize("padding", sorted(PADDING))
@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_a_slice_of_unchanged_ids_changes_nothing(kind: str, padding: str):
    model = model_of(kind)
    ids, real = batch(padding)
    wanted, cache = model(ids, real), filled(model, ids, real)
    before = [tensor.clone() for tensor in (*cache.keys, *cache.values)]
    for columns in (slice(0, 4), slice(4, 5), slice(6, LENGTH), slice(2, None), slice(-1, None)):
        logits = model(ids, real, cache=cache, columns=columns)
        close(logits[real[:, columns]], wanted[:, columns][real[:, columns]])
    for ours, tensor in zip((*cache.keys, *cache.values), before, strict=True):
        close(ours, tensor)


@pytest.mark.parametrize("padding", sorted(PADDING))
@pytest.mark.parametrize("first", [1, 5, 6])
def test_a_causal_model_column_by_column_is_the_full_forward(padding: str, first: int):
    """What comes later is not there yet."""
    model = model_of("causal")
    ids, real = batch(padding)
    cache = new_cache(model, ids)
    unknown = ids.clone()
    unknown[:, first:] = 0
    parts = [model(unknown, real, cache=cache, columns=slice(0, first))]
    for column in range(first, LENGTH):
        unknown[:, column - 1] = ids[:, column - 1]
        parts.append(model(unknown, real, cache=cache, columns=slice(column, column + 1)))
    close(torch.cat(parts, 1)[real], model(ids, real)[real])


@pytest.mark.parametrize("padding", sorted(PADDING))
def test_a_causal_model_computes_several_later_columns_at_once(padding: str):
    model = model_of("causal")
    ids, real = batch(padding)
    cache = new_cache(model, ids)
    parts = [
        model(ids, real, cache=cache, columns=slice(*ends)) for ends in ((0, 7), (7, 9), (9, 13))
    ]
    close(torch.cat(parts, 1)[real], model(ids, real)[real])


def frozen(model: Backbone, old: Tensor, new: Tensor, real: Tensor, columns: slice) -> Tensor:
    """The outputs at `columns` of `new`, written out: the other columns keep what `old` gave them.

    Explicit weights, heads in loops; first all of `old` is computed, then the columns of `new`.
    """
    shape = model.shape
    groups = shape.heads // shape.key_value_heads
    kept: list[tuple[Tensor, Tensor]] = []
    for ids, inside in ((old, slice(0, LENGTH)), (new, columns)):
        x = model.embedding(ids)[:, inside]
        rotation = tuple(part[inside] for part in rotary(LENGTH, shape, x))
        for number, block in enumerate(model.blocks):
            attention, normed = block.attention, block.attention_norm(x)
            query, key, value = (
                layer(normed).unflatten(-1, (-1, shape.head_width)).transpose(1, 2)
                for layer in (attention.query, attention.key, attention.value)
            )
            query = rotate(attention.query_norm(query), rotation)
            key = rotate(attention.key_norm(key), rotation)
            if ids is old:
                kept.append((key, value))
            else:
                before, after = slice(0, columns.start), slice(columns.stop, LENGTH)
                key, value = (
                    torch.cat([was[:, :, before], now, was[:, :, after]], 2)
                    for was, now in zip(kept[number], (key, value), strict=True)
                )
            heads = []
            for head in range(shape.heads):
                scores = query[:, head] @ key[:, head // groups].mT / shape.head_width**0.5
                weights = scores.masked_fill(~real[:, None, :], -torch.inf).softmax(-1)
                heads.append(weights @ value[:, head // groups])
            x = x + attention.output(torch.cat(heads, -1))
            hidden = block.mlp_norm(x)
            x = x + block.down(functional.silu(block.gate(hidden)) * block.up(hidden))
    return model.head(model.norm(x))


@pytest.mark.parametrize("padding", sorted(PADDING))
@pytest.mark.parametrize("kind", BIDIRECTIONAL)
def test_a_slice_of_new_ids_attends_to_the_other_columns_as_they_were(kind: str, padding: str):
    model = model_of(kind)
    (old, real), (new, _) = batch(padding, 0), batch(padding, 1)
    cache = filled(model, old, real)
    logits = model(new, real, cache=cache, columns=slice(7, 11))
    # Where the output before predicts, the column before is computed too.
    ahead = int(model.shape.predicts_next)
    wanted = frozen(model, old, new, real, slice(7 - ahead, 11))[:, :4]
    close(logits, wanted)
    assert (logits - model(new, real)[:, 7:11]).abs().max() > 1e-3  # it is an approximation


def test_later_slices_see_what_earlier_ones_wrote():
    """Slice after slice of new ids, and then all are new."""
    model = build_model(replace(LLADA, layers=1), 3, 0.5).double()
    (old, real), (new, _) = batch(seed=0), batch(seed=1)
    cache = filled(model, old, real)
    for columns in (slice(0, 6), slice(6, LENGTH)):
        model(new, real, cache=cache, columns=columns)
    # One layer's keys and values depend on the ids alone.
    close(model(new, real, cache=cache, columns=slice(3, 8)), model(new, real)[:, 3:8])


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_selected_positions_and_losses_are_those_of_the_slice(kind: str):
    model = model_of(kind)
    ids, real = batch("left")
    cache, columns = filled(model, ids, real), slice(6, 10)
    select = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1], [0, 1, 1, 1]]).bool()
    logits = model(ids, real, cache=cache, columns=columns)[select]
    close(model(ids, real, select, cache=cache, columns=columns), logits)
    targets = ids[:, columns][select]
    losses = model(ids, real, select, targets, cache=cache, columns=columns)
    close(losses, functional.cross_entropy(logits, targets, reduction="none"))


@pytest.mark.parametrize("kind", sorted(SHAPES))
@pytest.mark.parametrize("rows", [torch.tensor([2, 0]), torch.tensor([True, False, True])])
def test_rows_that_stay_are_computed_as_before(kind: str, rows: Tensor):
    model = model_of(kind)
    (ids, real), (new, _) = batch("left", 0), batch("left", 1)
    new[:, :6] = ids[:, :6]
    columns = slice(6, 10)
    wanted = model(new, real, cache=filled(model, ids, real), columns=columns)
    cache = filled(model, ids, real)
    cache.keep(rows)
    close(model(new[rows], real[rows], cache=cache, columns=columns), wanted[rows])


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_left_padding_that_no_row_needs_any_more_may_go(kind: str):
    """What is cached keeps its angles, and so do the columns that are computed afterwards."""
    model = model_of(kind)
    (ids, real), (new, _) = batch("all", 0), batch("all", 1)
    new[:, :7] = ids[:, :7]
    wanted = model(new, real, cache=filled(model, ids, real), columns=slice(7, 11))
    cache, rows = filled(model, ids, real), torch.tensor([0, 1])
    cache.keep(rows, slice(4, None))
    assert (cache.rows, cache.length, cache.written) == (2, LENGTH - 4, LENGTH - 4)
    logits = model(new[rows, 4:], real[rows, 4:], cache=cache, columns=slice(3, 7))
    close(logits, wanted[rows])


def test_a_dropped_row_is_not_held_any_longer():
    model = model_of("llada")
    ids, real = batch("all")
    cache = filled(model, ids, real)
    cache.keep(torch.tensor([1]), slice(3, None))
    size = 4 * (LENGTH - 3) * 4
    for tensor in (*cache.keys, *cache.values):
        assert tensor.untyped_storage().nbytes() == 8 * size


def test_how_the_plain_forward_is_executed_has_no_say():
    model = model_of("llada")
    ids, real = batch("left")
    wanted = model(ids, real)
    model.execution = Execution(packed=True, recompute=True)
    close(model(ids, real, cache=new_cache(model, ids))[real], wanted[real])


def test_columns_that_were_never_computed_are_not_attended_to():
    ids, real = batch()
    for kind, columns in (("llada", slice(0, 5)), ("causal", slice(5, 6))):
        model = model_of(kind)
        with pytest.raises(ValueError, match="does not hold: 0 of 13 are written"):
            model(ids, real, cache=new_cache(model, ids), columns=columns)
    model = model_of("causal")
    cache = new_cache(model, ids)
    model(ids, real, cache=cache, columns=slice(0, 5))
    with pytest.raises(ValueError, match="5 of 13 are written"):
        model(ids, real, cache=cache, columns=slice(6, 7))


def test_misuse_is_named():
    model = model_of("llada")
    ids, real = batch()
    cache = filled(model, ids, real)
    with pytest.raises(ValueError, match=r"3 rows of 13 columns, the ids are \[3, 12\]"):
        model(ids[:, 1:], real[:, 1:], cache=cache)
    for columns in (slice(4, 4), slice(0, 6, 2)):
        with pytest.raises(ValueError, match="no neighbours"):
            model(ids, real, cache=cache, columns=columns)
    with torch.enable_grad(), pytest.raises(ValueError, match="no gradients"):
        model(ids, real, cache=cache)
