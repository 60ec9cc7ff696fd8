"""Classifier-free guidance: a model that is asked with its prompt and without it.

    logits = u + (w + 1) (c - u)

c are the logits given the prompt, u those with every prompt token masked (LLaDA, arXiv 2502.09992,
appendix). w = 0 is the model itself; two forwards otherwise.
"""

import torch
from torch import Tensor, nn


class Guided:
    """A model under guidance, for the rows of one batch; called as the model is."""

    def __init__(
        self, model: nn.Module, prompt: Tensor, mask_token_id: int, guidance: float
    ) -> None:
        """The rows' prompts and the strength of guidance.

        Args:
            model: called as model(input_ids, attention_mask, select=bool[B, L]) -> logits[M, V].
            prompt: bool[B, L], true at the tokens that u does not see.
            mask_token_id: the id put in their place.
            guidance: w >= 0.
        """
        self.model, self.prompt = model, prompt
        self.mask_token_id, self.guidance = mask_token_id, guidance

    def __call__(self, input_ids: Tensor, attention_mask: Tensor | None, select: Tensor) -> Tensor:
        """Guided logits[M, V] of the M selected positions, in at least float32."""
        without = input_ids.masked_fill(self.prompt, self.mask_token_id)
        given, unconditional = (
            self._logits(ids, attention_mask, select) for ids in (input_ids, without)
        )
        return unconditional + (self.guidance + 1) * (given - unconditional)

    def _logits(self, ids: Tensor, attention_mask: Tensor | None, select: Tensor) -> Tensor:
        logits = self.model(ids, attention_mask, select=select)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
