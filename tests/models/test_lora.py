"""Adapters begin as nothing, are all that is trained, and merge into the plain weights."""

from collections.abc import Callable

import pytest
import torch

from raymdm.config.model import LoraSection
from raymdm.models import Backbone, ModelShape, build_model
from raymdm.models.lora import add_adapters, merged, whole_weights

SHAPE = ModelShape(24, 16, 2, 4, 2, 40, 22, 21, 23, predicts_next=True, query_key_value_bias=True)
IDS = torch.arange(12).view(2, 6)


def adapted(seed: int = 0, **keys: object) -> Backbone:
    model = build_model(SHAPE, 5, 0.5)
    add_adapters(model, LoraSection(**{"rank": 3, "alpha": 7, **keys}), seed)  # type: ignore[arg-type]
    return model


def shaken(model: Backbone) -> Backbone:
    """As after training: the adapters' second halves are zero no more."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3, generator=generator)
    return model


def test_new_adapters_change_nothing():
    assert torch.equal(adapted()(IDS), build_model(SHAPE, 5, 0.5)(IDS))


@pytest.mark.parametrize(
    ("targets", "count"), [(["query", "value"], 8), (["gate"], 4), (["output", "down", "key"], 12)]
)
def test_only_adapters_on_the_named_projections_are_trained(targets: list[str], count: int):
    trained = [n for n, p in adapted(targets=targets).named_parameters() if p.requires_grad]
    assert len(trained) == count
    for name in trained:
        assert name.split(".lora_")[0].rpartition(".")[2] in targets


def test_their_random_half_is_a_function_of_the_seed():
    def first(seed: int) -> torch.Tensor:
        return next(p for n, p in adapted(seed).named_parameters() if "lora_A" in n)

    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))


@pytest.mark.parametrize("change", [lambda m: m, lambda m: m.double()])
def test_merged_weights_are_a_plain_model_with_the_same_logits(
    change: Callable[[Backbone], Backbone],
):
    model = change(shaken(adapted()))
    plain = change(Backbone(SHAPE))
    state = {name: merged(module, ps) for name, module, ps in whole_weights(model)}
    plain.load_state_dict(state)
    torch.testing.assert_close(plain(IDS), model(IDS), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(plain(IDS), build_model(SHAPE, 5, 0.5).to(plain(IDS))(IDS), atol=0.1)


def test_the_weights_of_a_model_without_adapters_are_its_own():
    model = build_model(SHAPE, 5)
    state = {name: merged(module, ps) for name, module, ps in whole_weights(model)}
    assert state.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(state[name], p) for name, p in model.named_parameters())
