"""New models: shapes from configuration, weights from the `init` stream of a seed."""

import math

import torch

from raymdm.config.model import ModelSection
from raymdm.diffusion.noise import torch_generator
from raymdm.models.backbone import Backbone, ModelShape


def shape_from_config(
    section: ModelSection,
    *,
    vocabulary_size: int,
    mask_token_id: int,
    eos_token_id: int,
    pad_token_id: int,
    causal: bool = False,
) -> ModelShape:
    """The shape that a configuration and a tokenizer's figures describe."""
    multiple = section.vocabulary_multiple
    return ModelShape(
        vocabulary_size=math.ceil(vocabulary_size / multiple) * multiple,
        hidden_size=section.hidden_size,
        layers=section.layers,
        heads=section.heads,
        key_value_heads=section.key_value_heads or section.heads,
        intermediate_size=section.intermediate_size or 8 * math.ceil(section.hidden_size / 3),
        mask_token_id=mask_token_id,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        rope_theta=section.rope_theta,
        norm_epsilon=section.norm_epsilon,
        causal=causal,
    )


def build_model(shape: ModelShape, seed: int, initializer_std: float = 0.02) -> Backbone:
    """A new model whose weights are a pure function of (shape, seed), fp32, on the CPU.

    Normal weights of the given standard deviation; the two projections that write into the residual
    stream are scaled by 1/sqrt(2 · layers), so that its variance does not grow with depth.
    """
    model = Backbone(shape)
    with torch.no_grad():
        for index, (name, parameter) in enumerate(model.named_parameters()):
            if parameter.ndim < 2:
                continue
            std = initializer_std
            if name.endswith(("attention.output.weight", "down.weight")):
                std /= math.sqrt(2 * shape.layers)
            parameter.normal_(0.0, std, generator=torch_generator(seed, "init", index))
    return model
