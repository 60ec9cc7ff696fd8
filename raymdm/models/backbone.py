"""The backbone of LLaDA (arXiv 2502.09992), Dream (2508.15487) and MMaDA (2505.15809).

A bidirectional transformer: RMSNorm before attention and MLP, rotary positions, SwiGLU, grouped
queries, biases or query-key norms where the shape asks for them. Padding is hidden as keys, so a
row's result does not depend on how far it was padded. In every kind logits[:, i] predict token i:
the bidirectional model reads the whole row, the causal one (the autoregressive baseline) the tokens
before i. Where the output at i-1 is what predicts token i (Dream) it is shifted here and only here.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from raymdm.models.alignment import causal_keys, preceding, previous, shifted
from raymdm.models.cache import KeyValueCache, LayerCache, wanted_columns
from raymdm.models.head import Head
from raymdm.models.packing import PackedRows
from raymdm.models.rotary import rotary, rotate, widened
from raymdm.models.shape import ModelShape


@dataclass(frozen=True)
class Execution:
    """How a backbone computes, never what: results are equal up to rounding.

    Attributes:
        packed: leave padding out.
        recompute: keep only each block's input for the backward pass (activation checkpointing).
    """

    packed: bool = False
    recompute: bool = False


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
        self.head_width, self.causal = shape.head_width, shape.causal
        wide, narrow = (n * shape.head_width for n in (shape.heads, shape.key_value_heads))
        self.grouped = shape.heads != shape.key_value_heads
        bias = shape.query_key_value_bias
        self.query = nn.Linear(shape.hidden_size, wide, bias=bias)
        self.key = nn.Linear(shape.hidden_size, narrow, bias=bias)
        self.value = nn.Linear(shape.hidden_size, narrow, bias=bias)
        self.output = nn.Linear(wide, shape.hidden_size, bias=False)
        if shape.query_key_norm:
            self.query_norm: nn.Module = RMSNorm(shape.head_width, shape.norm_epsilon)
            self.key_norm: nn.Module = RMSNorm(shape.head_width, shape.norm_epsilon)
        else:
            self.query_norm = self.key_norm = nn.Identity()

    def forward(
        self,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        keys: Tensor | None,
        packed: PackedRows | None,
        cached: LayerCache | None = None,
    ) -> Tensor:
        """[B, L, D] -> [B, L, D], or [T, D] -> [T, D] of packed rows.

        Args:
            x: what attends.
            rotation: from `rotary`, for every position of a row or every packed token.
            keys: bool[B, 1, 1 or L, L], the positions that each query sees; None for all, or in a
                causal model for itself and all before it.
            packed: how x is packed; None where it is not. Then `keys` has no say: a document is
                all there is to see.
            cached: other columns to attend to; then x is [B, C, D], of the computed ones.
        """
        query, key, value = (self._heads(of(x)) for of in (self.query, self.key, self.value))
        query = rotate(self.query_norm(query), rotation)
        key = rotate(self.key_norm(key), rotation)
        if packed is not None:
            mixed = packed.attention(
                query, key, value, is_causal=self.causal, enable_gqa=self.grouped
            )
        else:
            first = cached is None or cached.columns.start == 0
            if cached is not None:
                key, value = cached.update(key, value)
            mixed = functional.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=keys,
                is_causal=self.causal and keys is None and first,
                enable_gqa=self.grouped,
            )
        return self.output(mixed.transpose(-3, -2).flatten(-2))

    def _heads(self, x: Tensor) -> Tensor:
        """[..., L, H · head width] -> [..., H, L, head width]."""
        return x.unflatten(-1, (-1, self.head_width)).transpose(-3, -2)


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

    def forward(
        self,
        x: Tensor,
        rotation: tuple[Tensor, Tensor],
        keys: Tensor | None,
        packed: PackedRows | None,
        cached: LayerCache | None = None,
    ) -> Tensor:
        """[B, L, D] or [T, D], as `Attention`."""
        x = x + self.attention(self.attention_norm(x), rotation, keys, packed, cached)
        hidden = self.mlp_norm(x)
        return x + self.down(functional.silu(self.gate(hidden)) * self.up(hidden))


class Backbone(nn.Module):
    """Token ids to logits, or to cross-entropies where the targets are given."""

    gives_losses: ClassVar[bool] = True
    """Can be asked for cross-entropies: see `raymdm.diffusion.cross_entropy`."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.execution = Execution()
        self.embedding = nn.Embedding(shape.vocabulary_size, shape.hidden_size)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden_size, shape.norm_epsilon)
        self.head = Head(shape.hidden_size, shape.vocabulary_size, bias=False)
        self.tie()

    def tie(self) -> None:
        """Let the head share the embedding's weight, where the shape says so."""
        if self.shape.tied_head:
            self.head.weight = self.embedding.weight

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What the head reads, [B, L, D]: the normed output that predicts the token at i.

        Args:
            input_ids: int64[B, L].
            attention_mask: bool (or 0/1) [B, L], true at real tokens; None if nothing is padded.
        """
        if attention_mask is not None:
            # Nothing to hide where nothing is padded: the fast attention kernels take no mask.
            attention_mask = None if attention_mask.all() else attention_mask.bool()
        keys, packed = None, None
        if self.shape.causal:
            input_ids, keys = shifted(input_ids, attention_mask, self.shape.eos_token_id)
        elif attention_mask is not None:
            keys = attention_mask[:, None, None, :]
        if self.execution.packed and attention_mask is not None:
            packed = PackedRows(attention_mask)
        x = self.embedding(input_ids if packed is None else packed.pack(input_ids))
        cos, sin = rotary(input_ids.shape[1], self.shape, x)
        rotation = (cos, sin) if packed is None else (packed.along(cos), packed.along(sin))
        recompute = self.execution.recompute and torch.is_grad_enabled()
        for block in self.blocks:
            if recompute:
                x = checkpoint(block, x, rotation, keys, packed, use_reentrant=False)
            else:
                x = block(x, rotation, keys, packed)
        x = self.norm(x)
        if packed is not None:
            x = packed.spread(x)
        return previous(x, attention_mask) if self.shape.predicts_next else x

    def cached_states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        cache: KeyValueCache,
        columns: slice | None = None,
    ) -> Tensor:
        """`hidden_states` of some columns, [B, C, D]; their keys and values go into the cache.

        Nothing is packed or recomputed. Where the output at i-1 predicts token i, the column before
        the first is computed (and its keys and values written) too.

        Args:
            input_ids: int64[B, L], all columns.
            attention_mask: bool (or 0/1) [B, L]: all that may be attended to.
            cache: of B rows and L columns. At first it is empty: then a bidirectional model has to
                compute all columns, a causal one the first of them.
            columns: those wanted, neighbours; None for all.

        Raises:
            ValueError: a cache of another size, without columns that are attended to, or under
                autograd.
        """
        shape = self.shape
        wanted = wanted_columns(columns, input_ids, cache)
        computed = slice(max(wanted.start - shape.predicts_next, 0), wanted.stop)
        if attention_mask is not None:
            attention_mask = None if attention_mask.all() else attention_mask.bool()
        keys, reach = None, cache.length
        if shape.causal:
            reach = computed.stop
            input_ids, visible = preceding(input_ids, attention_mask, shape.eos_token_id)
            if visible is None and 0 < computed.start < computed.stop - 1:
                visible = torch.ones_like(input_ids, dtype=torch.bool)
            # Without padding the first queries need no mask, and the last one alone sees all.
            keys = None if visible is None else causal_keys(visible, computed)
        elif attention_mask is not None:
            keys = attention_mask[:, None, None, :]
        x = self.embedding(input_ids[:, computed])
        cos, sin = cache.rotation
        rotation = cos[computed], sin[computed]
        for block, cached in zip(self.blocks, cache.write(computed, reach), strict=True):
            x = block(x, rotation, keys, None, cached)
        x = self.norm(x)
        if shape.predicts_next:
            x = previous(x, None if attention_mask is None else attention_mask[:, computed])
        return x[:, wanted.start - computed.start :]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        select: Tensor | None = None,
        targets: Tensor | None = None,
        *,
        cache: KeyValueCache | None = None,
        columns: slice | None = None,
    ) -> Tensor:
        """Logits[B, L, V]; with `select` bool[B, L] only those of the M selected positions, [M, V]
        in row-major order; with `targets` int64[M] too their cross-entropies[M].

        With a cache only C columns are computed, logits[B, C, V] and select bool[B, C] are theirs:
        see `cached_states`.
        """
        if cache is None:
            hidden = self.hidden_states(input_ids, attention_mask)
        else:
            hidden = self.cached_states(input_ids, attention_mask, cache, columns)
        return self.head(hidden if select is None else hidden[select], targets)
