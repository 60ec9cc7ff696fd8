"""New models: shapes from configuration, weights from the `init` stream of a seed."""

import math

from raymdm.config.model import ModelSection
from raymdm.models.backbone import Backbone
from raymdm.models.shape import ModelShape, SpecialTokens
from raymdm.models.weights import SeededWeights, assemble


def shape_from_config(
    section: ModelSection,
    *,
    vocabulary_size: int,
    tokens: SpecialTokens,
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
        mask_token_id=tokens.mask_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
        rope_theta=section.rope_theta,
        norm_epsilon=section.norm_epsilon,
        causal=causal,
    )


def build_model(shape: ModelShape, seed: int, initializer_std: float = 0.02) -> Backbone:
    """A new model whose weights are a pure function of (shape, seed), fp32, on the CPU."""
    return assemble(SeededWeights(shape, seed, initializer_std))
