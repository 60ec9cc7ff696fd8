"""Token rows of different lengths as one padded batch."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from raymdm.diffusion.rows import Rows


def collate(
    input_ids: Sequence[Sequence[int] | np.ndarray],
    prompt_lengths: Sequence[int] | np.ndarray,
    samples: Sequence[int] | np.ndarray,
    *,
    pad_token_id: int,
    eos_token_id: int,
    pad_supervision: Literal["none", "eos"] = "none",
    max_length: int | None = None,
    delimiters: Sequence[Sequence[int]] | None = None,
    syntax: Sequence[Sequence[int]] | None = None,
) -> Rows:
    """Rows padded on the right, with marks (all False where none are given).

    Args:
        input_ids: B token rows, each ending in one real EOS.
        prompt_lengths: B; positions from there on are the response.
        samples: B sample numbers.
        pad_token_id: fills what is hidden.
        eos_token_id: fills rows under `pad_supervision="eos"`.
        pad_supervision: `none` pads to the longest row and hides the padding; `eos` fills every row
            to `max_length` with EOS that belongs to the response.
        max_length: needed for `eos`, a property of the data set: the batch must not decide it.
        delimiters: B lists of positions, the response's answer delimiters.
        syntax: B lists of positions, the prompt's syntax.
    """
    longest = max(len(row) for row in input_ids)
    if pad_supervision == "eos":
        assert max_length is not None
        assert max_length >= longest
        longest = max_length
    fill = eos_token_id if pad_supervision == "eos" else pad_token_id
    ids: np.ndarray = np.full((len(input_ids), longest), fill, dtype=np.int64)
    lengths: np.ndarray = np.empty(len(input_ids), dtype=np.int64)
    for row, tokens in enumerate(input_ids):
        ids[row, : len(tokens)] = tokens
        lengths[row] = longest if pad_supervision == "eos" else len(tokens)
    positions = np.arange(longest)
    attention = positions < lengths[:, None]
    eligible = attention & (positions >= np.asarray(prompt_lengths)[:, None])
    return Rows(
        torch.from_numpy(ids),
        torch.from_numpy(attention),
        torch.from_numpy(eligible),
        [int(sample) for sample in samples],
        _marks(delimiters, len(ids), longest),
        _marks(syntax, len(ids), longest),
    )


def collate_rows(
    rows: Sequence[Mapping[str, Any]],
    samples: Sequence[int] | np.ndarray,
    *,
    pad_token_id: int,
    eos_token_id: int,
    pad_supervision: Literal["none", "eos"] = "none",
    max_length: int | None = None,
) -> Rows:
    """Rows as `RowIndex.read` returns them, collated with their marks; see `collate`."""
    return collate(
        [row["input_ids"] for row in rows],
        [row["prompt_length"] for row in rows],
        samples,
        pad_token_id=pad_token_id,
        eos_token_id=eos_token_id,
        pad_supervision=pad_supervision,
        max_length=max_length,
        delimiters=[row.get("delimiters", ()) for row in rows],
        syntax=[row.get("syntax", ()) for row in rows],
    )


def _marks(positions: Sequence[Sequence[int]] | None, rows: int, length: int) -> torch.Tensor:
    """bool[rows, length], True at each row's positions."""
    marks = torch.zeros(rows, length, dtype=torch.bool)
    for row, marked in enumerate(positions or ()):
        if marked:
            marks[row, list(marked)] = True
    return marks
