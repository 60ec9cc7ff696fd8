"""Keys and values of a whole batch, kept from one forward to the next.

A cached forward computes some of a row's columns and lets them attend to all: to the keys and
values just computed, and to the kept ones of the other columns. Of a causal model that is exact,
since no column ever depends on later ones; of a bidirectional model the other columns are frozen as
they were last computed (arXiv 2505.22618).

Keys are kept rotated, by the angle of the column that they had in the row's first forward. What is
left of the rotation is kept along with them, so that a column's angle stays its own when columns on
the left are dropped: attention only sees differences of positions.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from raymdm.models.rotary import rotary
from raymdm.models.shape import ModelShape


class KeyValueCache:
    """Keys and values of all layers, for B rows of L columns.

    Args:
        shape: of the model.
        rows: B.
        length: L, columns of a row, those not yet written included.
        like: a tensor with the dtype and on the device of what is kept: a weight of the model.
    """

    def __init__(self, shape: ModelShape, rows: int, length: int, like: Tensor) -> None:
        size = (rows, shape.key_value_heads, length, shape.head_width)
        # Zeros: what is hidden must still be a number, since it is multiplied by 0.
        self.keys = [like.new_zeros(size) for _ in range(shape.layers)]
        self.values = [like.new_zeros(size) for _ in range(shape.layers)]
        self.rotation = rotary(length, shape, like)
        self.written = 0
        """Columns from the left that have keys and values."""

    @property
    def rows(self) -> int:
        """B."""
        return self.keys[0].shape[0]

    @property
    def length(self) -> int:
        """L."""
        return self.keys[0].shape[2]

    def keep(self, rows: Tensor, columns: slice | None = None) -> None:
        """Drop all rows but these, and all columns but these.

        Args:
            rows: int64[R] their numbers, in their new order, or bool[B].
            columns: those that stay, neighbours: padding on the left may go when the longest row
                has. From now on they are counted from 0, with the angles that they have.
        """
        inside = slice(*(columns or slice(None)).indices(self.length))
        for kept in (self.keys, self.values):
            # One layer after the other, so that never more than one is held twice.
            for layer, tensor in enumerate(kept):
                kept[layer] = tensor[rows][:, :, inside].contiguous()
        cos, sin = self.rotation
        self.rotation = cos[inside], sin[inside]
        self.written = min(max(self.written - inside.start, 0), self.length)

    def write(self, columns: slice, reach: int) -> list["LayerCache"]:
        """What each layer needs for a forward of some columns that attend to columns < reach.

        Raises:
            ValueError: columns that are attended to have never been computed.
        """
        ready = max(self.written, columns.stop)
        if columns.start > self.written or reach > ready:
            raise ValueError(
                f"columns {columns.start} to {columns.stop} attend to columns that the cache does "
                f"not hold: {self.written} of {self.length} are written"
            )
        self.written = ready
        return [
            LayerCache(key, value, columns, reach)
            for key, value in zip(self.keys, self.values, strict=True)
        ]


class LayerCache(NamedTuple):
    """One layer's keys and values [B, H, L, head width], and what a forward does with them."""

    keys: Tensor
    values: Tensor
    columns: slice
    """Those that are computed."""
    reach: int
    """Columns before this one are attended to."""

    def update(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write those of the computed columns [B, H, C, head width]; all that are attended to."""
        self.keys[:, :, self.columns] = key
        self.values[:, :, self.columns] = value
        return self.keys[:, :, : self.reach], self.values[:, :, : self.reach]


def wanted_columns(columns: slice | None, input_ids: Tensor, cache: KeyValueCache) -> slice:
    """The columns as from start to stop.

    Raises:
        ValueError: ids of another size than the cache, columns that are none, or autograd.
    """
    if input_ids.shape != (cache.rows, cache.length):
        raise ValueError(
            f"the cache holds {cache.rows} rows of {cache.length} columns, the ids are "
            f"{list(input_ids.shape)}"
        )
    if torch.is_grad_enabled():
        raise ValueError("a cache has no gradients: call under torch.no_grad()")
    start, stop, stride = (columns or slice(None)).indices(cache.length)
    if stride != 1 or start >= stop:
        raise ValueError(f"{columns} of {cache.length} columns are no neighbours")
    return slice(start, stop)
