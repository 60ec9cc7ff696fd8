"""Padding-free computation: the real tokens of all rows as one stream, one document per row.

Everything that acts on tokens one by one (projections, norms, MLP) runs over the stream; only
attention sees rows again, each its own tokens, so that no document ever sees another.
"""

import torch
from torch import Tensor


class PackedRows:
    """Where the T real tokens of B padded rows of length L stand.

    Args:
        real: bool[B, L], at least one True.
    """

    def __init__(self, real: Tensor) -> None:
        self.shape = real.shape
        self.places = real.flatten().nonzero()[:, 0]

    def pack(self, x: Tensor) -> Tensor:
        """[B, L, ...] -> [T, ...], row by row."""
        return x.flatten(0, 1).index_select(0, self.places)

    def spread(self, x: Tensor) -> Tensor:
        """[T, ...] -> [B, L, ...], zeros where there is no token."""
        rows = x.new_zeros(self.shape.numel(), *x.shape[1:])
        return rows.index_copy(0, self.places, x).view(*self.shape, *x.shape[1:])


def packed_rows(attention_mask: Tensor | None) -> PackedRows | None:
    """The packing of a batch; None where nothing is padded."""
    if attention_mask is None or bool(torch.all(attention_mask)):
        return None
    return PackedRows(attention_mask.bool())
