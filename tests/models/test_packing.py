"""Without padding the results are the padded ones, and no document sees another."""

import pytest
import torch

from raymdm.models import Backbone, Execution, ModelShape, build_model
from raymdm.models.packing import PackedRows

REAL = torch.tensor([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]).bool()
KINDS = {
    "plain": {},
    "causal": {"causal": True},
    "dream": {"predicts_next": True, "query_key_value_bias": True, "query_key_norm": True},
}


def model_of(kind: str) -> Backbone:
    shape = ModelShape(24, 16, 2, 4, 2, 32, 22, 21, 23, **KINDS[kind])  # type: ignore[arg-type]
    return build_model(shape, 0, 0.5).double()


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(0, 22, REAL.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_packed_rows_give_the_padded_logits_and_gradients(kind: str, ids: torch.Tensor):
    results = []
    for packed in (False, True):
        model = model_of(kind)
        model.execution = Execution(packed=packed)
        logits = model(ids, REAL, select=REAL)
        logits.square().sum().backward()
        results.append([logits, *(p.grad for p in model.parameters())])
    for padded, packed in zip(*results, strict=True):
        torch.testing.assert_close(packed, padded, rtol=1e-9, atol=1e-9)


def test_no_token_reaches_another_document(ids: torch.Tensor):
    model = model_of("plain")
    model.execution = Execution(packed=True)
    before = model(ids, REAL)
    changed = ids.clone()
    changed[0, 2] += 1
    after = model(changed, REAL)
    assert torch.equal(before[1:], after[1:])
    assert not torch.allclose(before[0][REAL[0]], after[0][REAL[0]], atol=1e-3)


def test_padding_is_left_out_of_all_that_acts_on_single_tokens(ids: torch.Tensor):
    model = model_of("plain")
    seen = []
    model.blocks[0].gate.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    for packed in (False, True):
        model.execution = Execution(packed=packed)
        model(ids, REAL)
    assert seen == [(3, 6, 16), (int(REAL.sum()), 16)]


def test_packing_and_spreading_are_inverse():
    rows = PackedRows(REAL)
    stream = torch.arange(int(REAL.sum()) * 2).view(-1, 2)
    spread = rows.spread(stream)
    assert spread.shape == (3, 6, 2)
    assert torch.equal(rows.pack(spread), stream)
    assert (spread[~REAL] == 0).all()
    assert torch.equal(spread[0, :4], stream[:4])


def test_rows_without_padding_stay_rows(ids: torch.Tensor):
    model = model_of("plain")
    model.execution = Execution(packed=True)
    seen = []
    model.blocks[0].gate.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    model(ids)
    model(ids, torch.ones_like(REAL))
    assert seen == [(3, 6, 16), (3, 6, 16)]


@pytest.mark.parametrize("packed", [False, True])
def test_computing_blocks_again_changes_no_gradient(packed: bool, ids: torch.Tensor):
    gradients = []
    for recompute in (False, True):
        model = model_of("dream")
        model.execution = Execution(packed=packed, recompute=recompute)
        model(ids, REAL, select=REAL).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_recomputing_keeps_less_for_the_backward_pass(ids: torch.Tensor):
    kept = []
    for recompute in (False, True):
        model = model_of("plain")
        model.execution = Execution(recompute=recompute)
        numbers: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, numbers=numbers: (numbers.append(x.numel()), x)[1], lambda x: x
        ):
            model.hidden_states(ids, REAL)
        kept.append(sum(numbers))
    assert kept[1] < kept[0] / 10
