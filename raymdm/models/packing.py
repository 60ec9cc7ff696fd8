"""Padding-free computation: the real tokens of all rows as one stream, one document per row.

Everything that acts on tokens one by one (projections, norms, MLP) runs over the stream; attention
runs over one document after the other, so that no document ever sees another and none is padded.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


class PackedRows:
    """Where the T real tokens of B padded rows of length L stand.

    Args:
        real: bool[B, L], at least one True.
    """

    def __init__(self, real: Tensor) -> None:
        self.shape = real.shape
        self.places = real.flatten().nonzero()[:, 0]
        self.lengths = [length for length in real.sum(1).tolist() if length]
        self._attend = _uncompiled()

    def pack(self, x: Tensor) -> Tensor:
        """[B, L, ...] -> [T, ...], row by row."""
        return x.flatten(0, 1).index_select(0, self.places)

    def spread(self, x: Tensor) -> Tensor:
        """[T, ...] -> [B, L, ...], zeros where there is no token."""
        rows = x.new_zeros(self.shape.numel(), *x.shape[1:])
        return rows.index_copy(0, self.places, x).view(*self.shape, *x.shape[1:])

    def along(self, x: Tensor) -> Tensor:
        """What belongs to the positions of a row, [L, ...], for each token: [T, ...]."""
        return x.index_select(0, self.places % self.shape[1])

    def attention(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """Each document's attention to itself, [H, T, head width], as torch's own with options."""
        return self._attend(self, query, key, value, **options)


def _attend(rows: PackedRows, *projected: Tensor, **options: Any) -> Tensor:
    documents = zip(*(x.split(rows.lengths, 1) for x in projected), strict=True)
    # With a batch dimension, which torch's fast kernels require.
    batches = ([x[None] for x in document] for document in documents)
    return torch.cat([scaled_dot_product_attention(*qkv, **options)[0] for qkv in batches], 1)


@functools.cache
def _uncompiled() -> Callable[..., Tensor]:
    """`_attend` outside of compiled blocks: each number of documents would be compiled for itself.

    Made when it is needed, since it imports torch's compiler.
    """
    return torch.compiler.disable(_attend)
