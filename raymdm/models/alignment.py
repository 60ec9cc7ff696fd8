"""Where token i is predicted: what a causal model reads for it, and whose output says it."""

import torch
from torch import Tensor
from torch.nn import functional


def shifted(
    input_ids: Tensor, attention_mask: Tensor | None, begin: int
) -> tuple[Tensor, Tensor | None]:
    """What a causal model reads, and the keys that each query sees: `preceding`, `causal_keys`.

    Returns:
        int64[B, L], and bool[B, 1, L, L], or None where that is itself and all before it.
    """
    read, visible = preceding(input_ids, attention_mask, begin)
    return read, None if visible is None else causal_keys(visible, slice(0, input_ids.shape[1]))


def preceding(
    input_ids: Tensor, attention_mask: Tensor | None, begin: int
) -> tuple[Tensor, Tensor | None]:
    """What a causal model reads, so that position i predicts token i: the token before it.

    The first token of a row is predicted from `begin`, which stands right before it wherever the
    row is padded, so that padding on either side changes nothing.

    Args:
        input_ids: int64[B, L].
        attention_mask: bool[B, L], true at real tokens; None if nothing is padded.
        begin: the token id that stands for the beginning of a text.

    Returns:
        int64[B, L], and the columns that later ones may see, bool[B, L], or None for all.
    """
    before = functional.pad(input_ids[:, :-1], (1, 0), value=begin)
    if attention_mask is None:
        return before, None
    real = attention_mask
    follows = functional.pad(real[:, :-1], (1, 0))
    read = before.where(follows, begin)
    if not (real & ~follows)[:, 1:].any():
        return read, None  # Padding on the right comes after every query that counts.
    return read, real | follows


def causal_keys(visible: Tensor, queries: slice) -> Tensor:
    """The keys that each query sees, bool[B, 1, C, stop]: itself and what is visible before it.

    Args:
        visible: bool[B, L].
        queries: C columns, from start to stop.
    """
    places = torch.arange(queries.stop, device=visible.device)
    own = places[queries, None]
    # Hidden positions see themselves: some attention kernels make NaN of a softmax over nothing.
    return (visible[:, None, None, : queries.stop] & (places < own)) | (places == own)


def previous(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """The output before each position, [B, L, D]; of a row's first token, which has none, its own.

    The first token of a row so depends on nothing that padding holds.
    """
    before = torch.cat([hidden[:, :1], hidden[:, :-1]], dim=1)
    if attention_mask is None:
        return before
    first = attention_mask & ~functional.pad(attention_mask[:, :-1], (1, 0))
    return torch.where(first[..., None], hidden, before)
