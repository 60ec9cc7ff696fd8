"""The LLaDA backbone (arXiv 2502.09992): a bidirectional transformer with an untied head.

RMSNorm before attention and MLP, rotary positions (half-split), SwiGLU, no biases, grouped-query
attention where asked for. Padding is hidden as keys, so a row's result does not depend on how far
it was padded. In both kinds logits[:, i] predict token i: the bidirectional model reads the whole
row, the causal one (the autoregressive baseline) the tokens before i, shifted here and only here.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class ModelShape:
    """Everything that fixes a backbone's tensors and its special tokens.

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


def widened(dtype: torch.dtype) -> torch.dtype:
    """The type that norms and rotations are computed in: at least float32."""
    return torch.promote_types(dtype, torch.float32)


class RMSNorm(nn.Module):
    """x / rms(x) · weight, computed in at least float32."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D], same dtype."""
        wide = x.to(widened(x.dtype))
        normed = functional.rms_norm(wide, self.weight.shape, eps=self.epsilon)
        return normed.to(x.dtype) * self.weight


class Attention(nn.Module):
    """Scaled-dot-product attention with rotary positions."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.heads, self.key_value_heads = shape.heads, shape.key_value_heads
        self.head_size = shape.hidden_size // shape.heads
        self.causal = shape.causal
        narrow = self.key_value_heads * self.head_size
        self.query = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)
        self.key = nn.Linear(shape.hidden_size, narrow, bias=False)
        self.value = nn.Linear(shape.hidden_size, narrow, bias=False)
        self.output = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], keys: Tensor | None) -> Tensor:
        """[B, L, D] -> [B, L, D].

        Args:
            x: what attends.
            rotation: from `rotary`.
            keys: bool[B, 1, 1 or L, L], the positions that each query sees; None for all, or in a
                causal model for itself and all before it.
        """
        batch, length, _ = x.shape
        query = self.query(x).view(batch, length, self.heads, -1).transpose(1, 2)
        key = self.key(x).view(batch, length, self.key_value_heads, -1).transpose(1, 2)
        value = self.value(x).view(batch, length, self.key_value_heads, -1).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(
            rotate(query, rotation),
            rotate(key, rotation),
            value,
            attn_mask=keys,
            is_causal=self.causal and keys is None,
            enable_gqa=self.heads != self.key_value_heads,
        )
        return self.output(mixed.transpose(1, 2).reshape(batch, length, -1))


class Block(nn.Module):
    """One transformer block: attention and SwiGLU, each behind an RMSNorm, each added back."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(shape.hidden_size, shape.norm_epsilon)
        self.attention = Attention(shape)
        self.mlp_norm = RMSNorm(shape.hidden_size, shape.norm_epsilon)
        self.gate = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], keys: Tensor | None) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        x = x + self.attention(self.attention_norm(x), rotation, keys)
        hidden = self.mlp_norm(x)
        return x + self.down(functional.silu(self.gate(hidden)) * self.up(hidden))


class Backbone(nn.Module):
    """Token ids to logits."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary_size, shape.hidden_size)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden_size, shape.norm_epsilon)
        self.head = nn.Linear(shape.hidden_size, shape.vocabulary_size, bias=False)

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Normed output of the last block, [B, L, D].

        Args:
            input_ids: int64[B, L].
            attention_mask: bool (or 0/1) [B, L], true at real tokens; None if nothing is padded.
        """
        keys = None
        if self.shape.causal:
            input_ids, keys = shifted(input_ids, attention_mask, self.shape.eos_token_id)
        elif attention_mask is not None:
            keys = attention_mask.bool()[:, None, None, :]
        x = self.embedding(input_ids)
        shape = self.shape
        rotation = rotary(input_ids.shape[1], shape.hidden_size // shape.heads, shape.rope_theta, x)
        for block in self.blocks:
            x = block(x, rotation, keys)
        return self.norm(x)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        select: Tensor | None = None,
    ) -> Tensor:
        """Logits[B, L, V]; with `select` bool[B, L] only the M selected positions, [M, V] in
        row-major order (the head is by far the widest layer of a small model).
        """
        hidden = self.hidden_states(input_ids, attention_mask)
        return self.head(hidden if select is None else hidden[select])


def shifted(
    input_ids: Tensor, attention_mask: Tensor | None, begin: int
) -> tuple[Tensor, Tensor | None]:
    """What a causal model reads, so that position i predicts token i: the token before it.

    The first token of a row is predicted from `begin`, which stands right before it wherever the
    row is padded, so that padding on either side changes nothing.

    Args:
        input_ids: int64[B, L].
        attention_mask: bool (or 0/1) [B, L], true at real tokens; None if nothing is padded.
        begin: the token id that stands for the beginning of a text.

    Returns:
        int64[B, L], and the keys that each query sees, bool[B, 1, L, L], or None where that is
        itself and all before it.
    """
    before = functional.pad(input_ids[:, :-1], (1, 0), value=begin)
    if attention_mask is None:
        return before, None
    real = attention_mask.bool()
    follows = functional.pad(real[:, :-1], (1, 0))
    read = before.where(follows, begin)
    if not (real & ~follows)[:, 1:].any():
        return read, None  # Padding on the right comes after every query that counts.
    length = input_ids.shape[1]
    order = torch.ones(length, length, dtype=torch.bool, device=real.device).tril()
    # Hidden positions see themselves: some attention kernels make NaN of a softmax over nothing.
    own = torch.eye(length, dtype=torch.bool, device=real.device)
    return read, ((real | follows)[:, None, None, :] & order) | own


def rotary(length: int, head_size: int, theta: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cos and sin [L, head_size] of the rotation angles, in at least float32, where `like` is."""
    kind = {"device": like.device, "dtype": widened(like.dtype)}
    half = torch.arange(0, head_size, 2, **kind) / head_size
    angles = torch.outer(torch.arange(length, **kind), 1.0 / theta**half)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding of x[B, H, L, head_size], computed wide, back in x's dtype."""
    cos, sin = rotation
    wide = x.to(cos.dtype)
    first, second = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)
