"""Logits of chosen slots: from a full forward, or from one that keeps keys and values of a block's
surroundings (Fast-dLLM, arXiv 2505.22618)."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from raymdm.config.decoding import DecodingSection
from raymdm.decoding.canvas import Canvas
from raymdm.models import Backbone


class Forward(Protocol):
    """How the steps of one canvas get their logits."""

    def begin_step(self, canvas: Canvas, ends: Sequence[int]) -> list[int]:
        """Which of the B rows take part in the next step; columns that no row needs are dropped.

        Args:
            canvas: B rows.
            ends: the slot at which each row's current block ends.
        """

    def __call__(self, canvas: Canvas, working: list[int], wanted: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of wanted slots.

        Args:
            canvas: B rows.
            working: those of them that take part.
            wanted: bool[B, N], none of other rows.

        Returns:
            Which slots were computed, bool[B, N], M of the wanted ones; and their logits, [M, V] in
            row-major order, or with guidance [2M, V], those without the prompt in the second half.
        """


class FullForward:
    """Every step computes whole rows, whatever blocks they are at."""

    def __init__(self, model: Backbone, settings: DecodingSection) -> None:
        self.model, self.guided = model, settings.guidance > 0

    def begin_step(self, canvas: Canvas, ends: Sequence[int]) -> list[int]:
        """As `Forward`: all rows."""
        canvas.trim()
        return list(range(len(ends)))

    def __call__(self, canvas: Canvas, working: list[int], wanted: Tensor) -> tuple[Tensor, Tensor]:
        """As `Forward`: all that is wanted."""
        ids, real, select = inputs(canvas, wanted, self.guided)
        return wanted, self.model(ids, real, select=select)


def inputs(canvas: Canvas, wanted: Tensor, guided: bool) -> tuple[Tensor, Tensor | None, Tensor]:
    """Ids, attention mask and selected columns for the backbone, [B, L] each, or with guidance
    [2B, L], the rows without their prompts in the second half."""
    ids, real, select = canvas.ids, canvas.attention_mask, canvas.in_columns(wanted)
    if guided:
        ids = torch.cat([ids, canvas.without_prompt()])
        real = None if real is None else real.repeat(2, 1)
        select = select.repeat(2, 1)
    return ids, real, select
