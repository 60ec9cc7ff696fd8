"""Low-rank adapters (LoRA, arXiv 2106.09685) on a backbone's projections, through peft."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from raymdm.config.model import LoraSection
from raymdm.diffusion.noise import torch_generator
from raymdm.models.backbone import Backbone

_ADAPTER = "default"
_ATTENTION = ("query", "key", "value", "output")


def add_adapters(model: Backbone, section: LoraSection, seed: int) -> None:
    """Put adapters on the projections that the section names, and freeze everything else.

    The adapters' product begins at zero: the model computes what it did before. Their random half
    is drawn from the `init` stream of the seed.

    Args:
        model: changed in place; its weights may be sharded already.
        section: rank, alpha and targets.
        seed: of the run.
    """
    from peft import LoraConfig, inject_adapter_in_model

    assert section.rank is not None
    places = len(list(model.named_parameters()))
    inject_adapter_in_model(
        LoraConfig(
            r=section.rank,
            lora_alpha=section.alpha,
            target_modules=[
                f"attention.{name}" if name in _ATTENTION else name for name in section.targets
            ],
        ),
        model,
        adapter_name=_ADAPTER,
    )
    with torch.no_grad():
        for index, parameter in enumerate(p for n, p in model.named_parameters() if "lora_A" in n):
            bound = 1 / math.sqrt(parameter.shape[1])
            drawn = torch.empty(parameter.shape)
            drawn.uniform_(-bound, bound, generator=torch_generator(seed, "init", places + index))
            parameter.copy_(drawn)


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Within the block the model computes what it would without its adapters.

    Their product is scaled by 0: which weights are trained, and who watches their gradients, stays
    as it is.
    """
    from peft.tuners.lora import LoraLayer

    scales = [m.scaling for m in model.modules() if isinstance(m, LoraLayer)]
    before = [dict(scale) for scale in scales]
    for scale in scales:
        scale[_ADAPTER] = 0.0
    try:
        yield
    finally:
        for scale, usual in zip(scales, before, strict=True):
            scale.update(usual)


def whole_weights(model: nn.Module) -> list[tuple[str, nn.Module, Sequence[nn.Parameter]]]:
    """The model's weights as they would be without adapters.

    Returns:
        For each: its name before any adapter was added, the module that holds it, and the
        parameters that `merged` reads (a sharded one has to be gathered first).
    """
    found: list[tuple[str, nn.Module, Sequence[nn.Parameter]]] = []
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            continue
        plain = name.replace(".base_layer", "")
        module = model.get_submodule(plain.rpartition(".")[0])
        adapted = plain != name and name.endswith("weight")
        adapters = [p for n, p in module.named_parameters() if "lora_" in n] if adapted else []
        found.append((plain, module, [parameter, *adapters]))
    return found


def merged(module: nn.Module, parameters: Sequence[nn.Parameter]) -> Tensor:
    """The weight with its adapter, if any, added, on the CPU; arguments from `whole_weights`."""
    weight = parameters[0].detach()
    if len(parameters) == 1:
        return weight.cpu().clone()
    difference = module.get_delta_weight(_ADAPTER).detach()  # type: ignore[operator]
    return (
        (weight.to(torch.promote_types(weight.dtype, torch.float32)) + difference)
        .to(weight.dtype)
        .cpu()
    )
