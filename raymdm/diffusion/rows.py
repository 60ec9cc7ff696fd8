"""A batch of token rows, as the mathematics sees it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rows:
    """Rows of one micro-batch.

    Attributes:
        input_ids: int64[B, L], clean tokens.
        attention_mask: bool[B, L], true at real tokens.
        eligible: bool[B, L], the positions E that may be masked (the response); n = its row sums.
        samples: sample numbers of the rows, the address of their mask noise.
        delimiters: bool[B, L], the response's answer delimiters, where the task names any.
        syntax: bool[B, L], the prompt's syntax tokens, where the task names any.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    eligible: torch.Tensor
    samples: list[int]
    delimiters: torch.Tensor | None = None
    syntax: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def response_lengths(self) -> torch.Tensor:
        """n[B], int64: eligible positions of every row."""
        return self.eligible.sum(-1)

    def slice(self, start: int, stop: int) -> "Rows":
        """Rows start..stop-1, cut to the longest of them (padding is on the right)."""
        return self.take(range(start, min(stop, len(self))))

    def take(self, rows: Sequence[int]) -> "Rows":
        """These rows in this order, cut to the longest of them (padding is on the right)."""
        chosen = torch.as_tensor(rows, dtype=torch.int64, device=self.input_ids.device)
        attention = self.attention_mask[chosen]
        length = int(attention.sum(-1).max()) if len(attention) else 0
        return Rows(
            input_ids=self.input_ids[chosen, :length],
            attention_mask=attention[:, :length],
            eligible=self.eligible[chosen, :length],
            samples=[self.samples[row] for row in rows],
            delimiters=None if self.delimiters is None else self.delimiters[chosen, :length],
            syntax=None if self.syntax is None else self.syntax[chosen, :length],
        )

    def to(self, device: torch.device) -> "Rows":
        """The same rows on another device."""
        return Rows(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            self.eligible.to(device),
            self.samples,
            None if self.delimiters is None else self.delimiters.to(device),
            None if self.syntax is None else self.syntax.to(device),
        )
