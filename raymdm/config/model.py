"""Keys of the model: a folder to start from, or the sizes of a new LLaDA-shaped backbone; LoRA."""

from typing import Literal

from pydantic import Field, model_validator

from raymdm.config.section import Section

Projection = Literal["query", "key", "value", "output", "gate", "up", "down"]


class LoraSection(Section):
    """Low-rank adapters instead of training all weights (LoRA, arXiv 2106.09685), through peft."""

    rank: int | None = Field(default=None, ge=1)
    """Rank of the adapters; null trains all weights."""
    alpha: int = Field(default=16, ge=1)
    """The adapters' product is scaled by alpha / rank."""
    targets: list[Projection] = Field(
        default=["query", "key", "value", "output", "gate", "up", "down"], min_length=1
    )
    """Projections of every block that get one."""


class ModelSection(Section):
    """Sizes are used only when `init_from` is null."""

    init_from: str | None = None
    """Folder (or hub id) of a checkpoint to start from: LLaDA, Dream, MMaDA, a run's own, or a
    causal Llama, Qwen2 or Qwen3, which becomes a masked model. null builds one from the sizes."""
    lora: LoraSection = LoraSection()
    hidden_size: int = Field(default=64, ge=8)
    """Width of the residual stream."""
    layers: int = Field(default=2, ge=1)
    """Number of transformer blocks."""
    heads: int = Field(default=4, ge=1)
    """Attention heads; the width must be a multiple of them."""
    key_value_heads: int | None = Field(default=None, ge=1)
    """Heads of keys and values (grouped-query attention); null means as many as heads."""
    intermediate_size: int | None = Field(default=None, ge=8)
    """Width of the SwiGLU layer; null means 8/3 of the hidden size, rounded up to 8."""
    rope_theta: float = Field(default=10000.0, gt=0)
    """Base of the rotary position embedding."""
    norm_epsilon: float = Field(default=1e-5, gt=0)
    """Epsilon of the RMS norms."""
    initializer_std: float = Field(default=0.02, gt=0)
    """Standard deviation of new weights; output projections are scaled down by the depth."""
    vocabulary_multiple: int = Field(default=8, ge=1)
    """The embedding has the vocabulary's size rounded up to a multiple of this."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "ModelSection":
        if self.hidden_size % (2 * self.heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} must be an even multiple of heads {self.heads}"
            )
        if self.heads % (self.key_value_heads or self.heads):
            raise ValueError(
                f"heads {self.heads} must be a multiple of key_value_heads {self.key_value_heads}"
            )
        return self
