"""The output layer, by far the widest of a small model: logits, or cross-entropies in chunks.

With targets it gives the cross-entropies themselves, and may then hold the logits of only a few
positions at a time: they are computed again in the backward pass, for a third more arithmetic.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymdm.models.rotary import widened


class Head(nn.Linear):
    """Hidden states to logits, or to cross-entropies.

    Attributes:
        chunk: positions whose logits are held at once where targets are given; None for all.
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
    """CE = logsumexp(h W^T) - (h W^T)[target]; its gradient by the logits is softmax - one-hot."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> Tensor:
        losses = hidden.new_empty(len(hidden), dtype=widened(hidden.dtype))
        normalizers = torch.empty_like(losses)
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            logits = _logits(hidden[part], weight)
            normalizers[part] = logits.logsumexp(-1)
            losses[part] = normalizers[part] - logits.gather(1, targets[part, None])[:, 0]
        ctx.save_for_backward(hidden, weight, targets, normalizers)
        ctx.chunk = chunk
        return losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = grad_outputs
        hidden, weight, targets, normalizers = ctx.saved_tensors
        by_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        # Many small terms are added up: in half precision they would be rounded away.
        by_weight = (
            torch.zeros_like(weight, dtype=widened(weight.dtype))
            if ctx.needs_input_grad[1]
            else None
        )
        for start in range(0, len(hidden), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            by_logits = _logits(hidden[part], weight)
            by_logits.sub_(normalizers[part, None]).exp_()
            rows = torch.arange(len(by_logits), device=hidden.device)
            by_logits[rows, targets[part]] -= 1.0
            by_logits.mul_(scale[part, None])
            narrow = by_logits.to(weight.dtype)
            if by_hidden is not None:
                torch.mm(narrow, weight, out=by_hidden[part])
            if by_weight is not None:
                if by_weight.dtype == narrow.dtype:
                    by_weight.addmm_(narrow.T, hidden[part])
                else:
                    by_weight.add_(narrow.T @ hidden[part])
        weighted = None if by_weight is None else by_weight.to(weight.dtype)
        return by_hidden, weighted, None, None


def _logits(hidden: Tensor, weight: Tensor) -> Tensor:
    logits = functional.linear(hidden, weight)
    return logits.to(widened(logits.dtype))
