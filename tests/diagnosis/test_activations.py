"""The counts are those of the tensors that autograd keeps in the real backbone."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from raymdm.config.model import LoraSection
from raymdm.diagnosis.activations import block_bytes, count_activations
from raymdm.models import Execution, ModelShape, build_model
from raymdm.models.lora import add_adapters

ROWS, LENGTH = 2, 64
SHAPE = ModelShape(
    vocabulary_size=100,
    hidden_size=64,
    layers=2,
    heads=4,
    key_value_heads=4,
    intermediate_size=176,
    mask_token_id=97,
    eos_token_id=98,
    pad_token_id=99,
)


@pytest.fixture(autouse=True)
def _torchs_own_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """ZeRO 3 replaces it for the whole process, which other tests may have used it in."""
    monkeypatch.setattr(nn.functional, "linear", torch._C._nn.linear)


def shaped(**changes: object) -> ModelShape:
    return ModelShape(**{**SHAPE.__dict__, **changes})  # type: ignore[arg-type]


def made(shape: ModelShape, dtype: torch.dtype, lora: LoraSection) -> nn.Module:
    model = build_model(shape, seed=0).to(dtype)
    if lora.rank is not None:
        add_adapters(model, lora, seed=0)
    return model


def kept_bytes(model: nn.Module, *, padded: bool = False, length: int = LENGTH) -> int:
    """Bytes of all storages that the graph of the hidden states keeps, weights left out."""
    ids = torch.zeros(ROWS, length, dtype=torch.int64)
    mask = torch.ones(ROWS, length, dtype=torch.bool)
    if padded:
        mask[0, -5:] = False
    storages: dict[int, int] = {}
    alive = []
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        alive.append(tensor)  # or its address would be given to another one
        # Indices of tokens and the angles of positions are a few bytes a token.
        if tensor.is_floating_point() and storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model.hidden_states(ids, mask)
    return sum(storages.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(
    ("changes", "lora"),
    [
        ({}, {}),
        ({"key_value_heads": 2}, {}),
        ({"query_key_norm": True, "query_key_value_bias": True}, {}),
        ({"query_key_norm": True, "key_value_heads": 2}, {"rank": 8}),
        ({}, {"rank": 8}),
        ({}, {"rank": 4, "targets": ["query", "value"]}),
        ({}, {"rank": 4, "targets": ["up"]}),
        ({}, {"rank": 4, "targets": ["output", "down"]}),
    ],
    ids=["plain", "grouped", "normed", "normed-lora", "lora", "lora-qv", "lora-up", "lora-out"],
)
def test_a_block_keeps_what_is_counted(
    dtype: torch.dtype, padded: bool, changes: dict[str, object], lora: dict[str, object]
) -> None:
    """The third block more: the first keeps less where its input has no gradient."""
    section = LoraSection.model_validate(lora)
    two = made(shaped(**changes), dtype, section)
    three = made(shaped(**changes, layers=3), dtype, section)
    kept = kept_bytes(three, padded=padded) - kept_bytes(two, padded=padded)
    counted = ROWS * LENGTH * block_bytes(shaped(**changes), dtype.itemsize, section)
    # Each block makes its own copy of the keys to see, in numbers: one per position.
    assert kept - padded * ROWS * LENGTH * dtype.itemsize == counted


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_keeps_what_is_counted(dtype: torch.dtype) -> None:
    shape = shaped(layers=4)
    counted = count_activations(
        shape, ROWS * LENGTH, dtype.itemsize, LoraSection(), recompute=False
    )
    kept = kept_bytes(made(shape, dtype, LoraSection()))
    assert kept == pytest.approx(counted.kept, rel=0.01)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("key_value_heads", [4, 2])
def test_attention_keeps_nothing_that_grows_with_the_square_of_the_length(
    padded: bool, key_value_heads: int
) -> None:
    model = made(shaped(key_value_heads=key_value_heads), torch.float32, LoraSection())
    short, long = (kept_bytes(model, padded=padded, length=length) for length in (64, 512))
    assert long == pytest.approx(8 * short, rel=0.001)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_recomputed_blocks_only_the_inputs_are_kept(dtype: torch.dtype) -> None:
    model = made(SHAPE, dtype, LoraSection())
    model.execution = Execution(recompute=True)  # type: ignore[assignment]
    tokens, width = ROWS * LENGTH, dtype.itemsize
    counted = count_activations(SHAPE, tokens, width, LoraSection(), recompute=True)
    assert kept_bytes(model) == counted.kept
    assert counted.block == tokens * block_bytes(SHAPE, width, LoraSection())
