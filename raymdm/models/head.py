"""The output layer, by far the widest of a small model: logits, or cross-entropies in chunks.

With targets it gives the cross-entropies themselves, and may then hold only as many logits at a
time as a few positions have: they are computed again in the backward pass, for a third more
arithmetic (about what is saved by never writing all of them to memory).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymdm.models.rotary import widened


class Head(nn.Linear):
    """Hidden states to logits, or to cross-entropies.

    Attributes:
        chunk: how many positions' worth of logits is held at once where targets are given; None
            for all.
    """

    chunk: int | None = None

    def forward(self, hidden: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits[..., V] of hidden[..., D]; with targets int64[M] of hidden[M, D] the
        cross-entropies[M], in at least float32.
        """
        if targets is None:
            return functional.linear(hidden, self.weight)
        if self.chunk is not None and self.chunk < len(targets):
            return _ChunkedCrossEntropy.apply(hidden, self.weight, targets, self.chunk)
        logits = functional.linear(hidden, self.weight)
        return functional.cross_entropy(logits.to(widened(logits.dtype)), targets, reduction="none")


class _ChunkedCrossEntropy(torch.autograd.Function):
    """CE = logsumexp(h W^T) - (h W^T)[target], all positions and a range of tokens at a time.

    Chunks of the vocabulary and not of the positions: every row of the weight is then read once in
    each direction, and its gradient is one product, written once, with nothing to add up.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> Tensor:
        chunks = _Chunks(hidden, weight, targets, chunk)
        largest = hidden.new_full(targets.shape, -torch.inf, dtype=chunks.dtype)
        smallest = torch.finfo(chunks.dtype).min  # -inf - -inf is no number
        total, wanted = torch.zeros_like(largest), torch.zeros_like(largest)
        for tokens in chunks:
            logits = chunks.logits(tokens)
            place, inside = chunks.place(tokens)
            wanted += logits.gather(1, place)[:, 0].where(inside, 0.0)
            # The sum of exponentials so far is kept relative to the largest logit so far.
            grown = torch.maximum(largest, logits.amax(1)).clamp(min=smallest)
            total *= (largest - grown).exp_()
            total += logits.sub_(grown[:, None]).exp_().sum(1)
            largest = grown
        normalizers = largest + total.log_()
        ctx.save_for_backward(hidden, weight, targets, normalizers)
        ctx.chunk = chunk
        return normalizers - wanted

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        # By the logits: scale · (softmax - one-hot). The scale is put on the narrow sides.
        scale = grad_outputs[0][:, None]
        hidden, weight, targets, normalizers = ctx.saved_tensors
        chunks = _Chunks(hidden, weight, targets, ctx.chunk)
        # Summed over the chunks, in half precision small terms would be rounded away.
        by_hidden = (
            torch.zeros_like(hidden, dtype=chunks.dtype) if ctx.needs_input_grad[0] else None
        )
        by_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        scaled = (hidden * scale).to(hidden.dtype)
        for tokens in chunks:
            unscaled = chunks.logits(tokens).sub_(normalizers[:, None]).exp_()
            place, inside = chunks.place(tokens)
            unscaled.scatter_add_(1, place, -inside[:, None].to(unscaled.dtype))
            narrow = chunks.narrowed(unscaled)
            if by_hidden is not None:
                if by_hidden.dtype == narrow.dtype:
                    by_hidden.addmm_(narrow, weight[tokens])
                else:
                    by_hidden.add_(narrow @ weight[tokens])
            if by_weight is not None:
                torch.mm(narrow.T, scaled, out=by_weight[tokens])
        if by_hidden is not None:
            by_hidden = by_hidden.mul_(scale).to(hidden.dtype)
        return by_hidden, by_weight, None, None


class _Chunks:
    """Ranges of tokens whose M · width logits take no more room than those of `chunk` positions.

    All of them use the same memory: fresh pages would cost more than what is computed in them.

    Args:
        hidden: [M, D].
        weight: [V, D].
        targets: int64[M].
        chunk: positions, below M.
    """

    def __init__(self, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> None:
        self.hidden, self.weight, self.targets = hidden, weight, targets
        self.width = max(1, chunk * len(weight) // len(hidden))
        self.dtype = widened(hidden.dtype)
        """Of logits and cross-entropies."""
        size = len(hidden) * self.width
        self._narrow = hidden.new_empty(size)
        same = self.dtype == hidden.dtype
        self._wide = self._narrow if same else hidden.new_empty(size, dtype=self.dtype)

    def __iter__(self) -> Iterator[slice]:
        """The ranges, in order."""
        rows = len(self.weight)
        return (slice(at, min(at + self.width, rows)) for at in range(0, rows, self.width))

    def logits(self, tokens: slice) -> Tensor:
        """[M, width of the range], until the next range's."""
        weight = self.weight[tokens]
        narrow = torch.mm(self.hidden, weight.T, out=self._view(self._narrow, len(weight)))
        return self._view(self._wide, len(weight)).copy_(narrow) if self._has_two else narrow

    def narrowed(self, logits: Tensor) -> Tensor:
        """Of what `logits` gave, in the weight's dtype."""
        return self._view(self._narrow, logits.shape[1]).copy_(logits) if self._has_two else logits

    def place(self, tokens: slice) -> tuple[Tensor, Tensor]:
        """Where each target stands in the range, int64[M, 1], and whether it does, bool[M]."""
        place = self.targets - tokens.start
        width = tokens.stop - tokens.start
        return place.clamp(0, width - 1)[:, None], (place >= 0) & (place < width)

    @property
    def _has_two(self) -> bool:
        return self._wide is not self._narrow

    def _view(self, memory: Tensor, width: int) -> Tensor:
        return memory[: len(self.hidden) * width].view(len(self.hidden), width)
