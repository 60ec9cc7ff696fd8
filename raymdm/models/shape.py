"""The shape of a backbone: everything that fixes its tensors, its special tokens and its maths."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Family = Literal["llada", "mmada", "dream", "raymdm"]
"""Layouts that checkpoints are written in; `raymdm` holds what no published one can say."""


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of a tokenizer's special tokens."""

    mask_token_id: int
    eos_token_id: int
    pad_token_id: int


@dataclass(frozen=True)
class RopeScaling:
    """Llama 3's stretched rotary frequencies (`rope_type: llama3` of its configurations).

    Wavelengths beyond `original_length / low_frequency` are stretched by `factor`, those below
    `original_length / high_frequency` stay, and between the two the change is linear.
    """

    factor: float
    low_frequency: float
    high_frequency: float
    original_length: int


@dataclass(frozen=True)
class ModelShape:
    """Everything that fixes a backbone.

    `vocabulary_size` counts embedding rows (padding rows included); the three ids are rows of it.
    """

    vocabulary_size: int
    hidden_size: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate_size: int
    mask_token_id: int
    eos_token_id: int
    pad_token_id: int
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-5
    causal: bool = False
    """Predict every token from the ones before it."""
    head_size: int | None = None
    """Width of an attention head; None for hidden_size / heads."""
    query_key_value_bias: bool = False
    """Biases on the three projections into attention (Dream, Qwen2)."""
    query_key_norm: bool = False
    """RMS norms of queries and keys, head by head (Qwen3)."""
    tied_head: bool = False
    """The head's weight is the embedding's."""
    predicts_next: bool = False
    """The output at i-1 predicts token i, as in a causal model (Dream): aligned by the backbone."""
    rope_scaling: RopeScaling | None = None
    family: Family = "llada"
    """The layout that the model is written in."""
    published: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The `config.json` it came with: keys without a meaning here are written back unchanged."""

    @property
    def head_width(self) -> int:
        """Width of an attention head."""
        return self.head_size or self.hidden_size // self.heads
