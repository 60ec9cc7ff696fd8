"""Blocks with a cache (Fast-dLLM, arXiv 2505.22618): what lies around a block is computed once.

At the first step of a block all columns are computed, and their keys and values kept. Its further
steps compute the columns from the block's start on (`prefix`) or of the block alone (`dual`), which
attend to the kept ones of the others. Those are of the block's first step, so that responses are
no longer the model's own, but near them; a block of one step is exact.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from raymdm.config.decoding import DecodingSection
from raymdm.decoding.canvas import Canvas
from raymdm.decoding.forward import inputs
from raymdm.models import Backbone
from raymdm.models.cache import KeyValueCache


class CachedForward:
    """As `Forward`, for rows whose slots are their last columns: block by block, all rows together;
    those that are through with a block wait for the others.
    """

    def __init__(self, model: Backbone, settings: DecodingSection) -> None:
        self.model, self.guided, self.dual = model, settings.guidance > 0, settings.cache == "dual"
        self.block_length = settings.block_length
        self.end = 0
        """Of the current block, a slot."""
        self.cache: KeyValueCache | None = None
        self.rows: list[int] = []
        """Whose keys and values the cache has."""

    def begin_step(self, canvas: Canvas, ends: Sequence[int]) -> list[int]:
        """As `Forward`: the rows at the first block that any of them is at."""
        end = min(ends)
        if end != self.end:
            canvas.trim()
            self.end, self.cache = end, None
        return [place for place, other in enumerate(ends) if other == end]

    def __call__(self, canvas: Canvas, working: list[int], wanted: Tensor) -> tuple[Tensor, Tensor]:
        """As `Forward`: all that is wanted in the columns that are computed."""
        (rows, length), slots = canvas.ids.shape, wanted.shape[1]
        columns = slice(0, length)
        sides = 2 if self.guided else 1
        names = [canvas.rows[place] for place in working]
        if self.cache is None:
            weight = self.model.embedding.weight
            self.cache = KeyValueCache(self.model.shape, sides * len(working), length, weight)
        else:
            if names != self.rows:
                stay = [self.rows.index(name) for name in names]
                self.cache.keep(_on_sides(stay, len(self.rows), sides, wanted.device))
            start = (
                (self.end - 1) // self.block_length * self.block_length if self.block_length else 0
            )
            stop = self.end if self.dual else slots
            wanted = wanted.clone()
            wanted[:, :start] = False
            wanted[:, stop:] = False
            columns = slice(length - slots + start, length - slots + stop)
        self.rows = names
        ids, real, select = inputs(canvas, wanted, self.guided)
        if len(working) < rows:
            index = _on_sides(working, rows, sides, wanted.device)
            ids, select = ids[index], select[index]
            real = None if real is None else real[index]
        logits = self.model(ids, real, select[:, columns], cache=self.cache, columns=columns)
        return wanted, logits


def _on_sides(places: list[int], rows: int, sides: int, device: torch.device) -> Tensor:
    """Places among `rows` rows, and with guidance the same in the second half too: int64."""
    index = torch.tensor(places, device=device)
    return torch.cat([index + side * rows for side in range(sides)])
