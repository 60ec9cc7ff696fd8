"""Cross-entropies at chosen positions: logits are computed there only."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def cross_entropy_sums(
    model: nn.Module,
    shown: Tensor,
    attention_mask: Tensor,
    tokens: Tensor,
    predicted: Tensor,
    coefficients: Tensor | None = None,
) -> Tensor:
    """Sum of coefficient · CE over the predicted positions of each row, fp32[R] (0 where none).

    Args:
        model: called as model(shown, attention_mask, select=predicted) -> logits[M, V]; one that
            says `gives_losses` is handed targets=int64[M] as well and gives their CEs[M].
        shown: int64[R, L], what the model sees.
        attention_mask: bool[R, L].
        tokens: int64[R, L], what it has to predict.
        predicted: bool[R, L], M of them true.
        coefficients: float[R, L]; None for 1 everywhere.
    """
    targets = tokens[predicted]
    if getattr(model, "gives_losses", False):
        losses = model(shown, attention_mask, select=predicted, targets=targets)
    else:
        logits = model(shown, attention_mask, select=predicted)
        precision = torch.promote_types(logits.dtype, torch.float32)
        losses = functional.cross_entropy(logits.to(precision), targets, reduction="none")
    if coefficients is not None:
        losses = losses * coefficients[predicted].to(losses)
    row = predicted.nonzero()[:, 0]
    return losses.new_zeros(len(tokens)).index_add(0, row, losses)


def masked_cross_entropy(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor, masked: Tensor, mask_token_id: int
) -> Tensor:
    """Sum of the CEs at the masked positions of each row, fp32[R], those tokens being hidden.

    Args:
        model: as for `cross_entropy_sums`.
        input_ids: int64[R, L], clean tokens.
        attention_mask: bool[R, L].
        masked: bool[R, L].
        mask_token_id: the id put in their place.
    """
    shown = input_ids.masked_fill(masked, mask_token_id)
    return cross_entropy_sums(model, shown, attention_mask, input_ids, masked)
