"""The rows that are written together: token ids with masked slots, right-aligned, padding hidden.

A slot is a position that decoding fills, counted from 0 within its row. Everything that is decided
is decided per slot, [B, N], and so the same wherever padding puts the slot's column.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raymdm.models import ModelShape


@dataclass
class Canvas:
    """B rows of L columns with up to N slots each.

    Attributes:
        shape: names the mask, EOS and padding tokens.
        rows: which of the caller's rows these are.
        steps: how many steps of its own each row has had.
        lengths: slots of each row.
        padding: hidden columns at the left of each row.
        ids: int64[B, L].
        real: bool[B, L], true at real tokens.
        columns: int64[B, N], ascending: where the slots are. A slot that a row does not have points
            at a column that is not to be filled, and is written back as it was read.
        present: bool[B, N], false at slots that a row does not have.
        running: [B, N], the confidence that remasking keeps, -inf before the first.
    """

    shape: ModelShape
    rows: list[int]
    steps: list[int]
    lengths: list[int]
    padding: list[int]
    ids: Tensor
    real: Tensor
    columns: Tensor
    present: Tensor
    running: Tensor

    @staticmethod
    def of(
        rows: Sequence[int],
        ids: Sequence[Sequence[int]],
        slots: Sequence[Sequence[int]],
        shape: ModelShape,
        device: torch.device,
    ) -> "Canvas":
        """Rows of ids whose slots (ascending, at least one each) are masked already."""
        width, longest = max(map(len, ids)), max(map(len, slots))
        padding = [width - len(row) for row in ids]
        filled = [
            [shape.pad_token_id] * left + list(row) for left, row in zip(padding, ids, strict=True)
        ]
        columns = []
        for row, left, filling in zip(ids, padding, slots, strict=True):
            absent = longest - len(filling)
            other = _first_other(filling)
            # A row of slots only is shorter than the one with the most slots, and so padded.
            place = left + other if other < len(row) else 0
            columns.append([left + slot for slot in filling] + [place] * absent)
        lengths = [len(filling) for filling in slots]
        present = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
        return Canvas(
            shape=shape,
            rows=list(rows),
            steps=[0] * len(rows),
            lengths=lengths,
            padding=padding,
            ids=torch.tensor(filled, device=device),
            real=(torch.arange(width)[None] >= torch.tensor(padding)[:, None]).to(device),
            columns=torch.tensor(columns, device=device),
            present=present.to(device),
            running=torch.full(present.shape, -torch.inf, device=device),
        )

    @property
    def attention_mask(self) -> Tensor | None:
        """What the backbone is to attend to; None where nothing is padded."""
        return self.real if any(self.padding) else None

    @property
    def responses(self) -> Tensor:
        """What stands in the slots, int64[B, N]."""
        return self.ids.gather(1, self.columns)

    def masked(self, responses: Tensor) -> Tensor:
        """Which slots of these contents are masked, bool[B, N]."""
        return (responses == self.shape.mask_token_id) & self.present

    def write(self, responses: Tensor) -> None:
        """Put contents, int64[B, N], into the slots."""
        self.ids.scatter_(1, self.columns, responses)

    def in_columns(self, slots: Tensor) -> Tensor:
        """A choice of slots, bool[B, N] (none that are absent), as columns: bool[B, L]."""
        return torch.zeros_like(self.real).scatter_(1, self.columns, slots)

    def without_prompt(self) -> Tensor:
        """The ids with everything that is not a slot masked, padding too: int64[B, L]."""
        return self.ids.masked_fill(~self.in_columns(self.present), self.shape.mask_token_id)

    def keep(self, places: Sequence[int]) -> None:
        """Let only these of the B rows stay, in this order."""
        index = torch.tensor(places, dtype=torch.long, device=self.ids.device)
        for name in ("rows", "steps", "lengths", "padding"):
            values = getattr(self, name)
            setattr(self, name, [values[place] for place in places])
        for name in ("ids", "real", "columns", "present", "running"):
            setattr(self, name, getattr(self, name)[index])

    def trim(self) -> None:
        """Drop the columns and slots that no row needs any more."""
        spare, longest = min(self.padding), max(self.lengths)
        if spare:
            self.ids, self.real = self.ids[:, spare:].contiguous(), self.real[:, spare:]
            self.padding = [left - spare for left in self.padding]
            # The padding that absent slots of a row without other tokens point at: some is left.
            self.columns = (self.columns - spare).clamp(min=0)
        if longest < self.columns.shape[1]:
            self.columns, self.present = self.columns[:, :longest], self.present[:, :longest]
            self.running = self.running[:, :longest]


def _first_other(slots: Sequence[int]) -> int:
    """The first column that is no slot."""
    return next((at for at, slot in enumerate(slots) if slot != at), len(slots))
