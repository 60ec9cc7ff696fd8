"""A batch of token rows, as the mathematics sees it."""

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
        attention = self.attention_mask[start:stop]
        length = int(attention.sum(-1).max()) if len(attention) else 0
        return Rows(
            input_ids=self.input_ids[start:stop, :length],
            attention_mask=attention[:, :length],
            eligible=self.eligible[start:stop, :length],
            samples=self.samples[start:stop],
            delimiters=_cut(self.delimiters, start, stop, length),
            syntax=_cut(self.syntax, start, stop, length),
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


def _cut(marks: torch.Tensor | None, start: int, stop: int, length: int) -> torch.Tensor | None:
    return None if marks is None else marks[start:stop, :length]
