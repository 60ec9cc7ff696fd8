"""Whether greedy decoding would write a given continuation, as `loglikelihood` tasks ask."""

import torch
from torch import Tensor

from raymdm.config.decoding import DecodingSection
from raymdm.decoding.prediction import predict
from raymdm.diffusion.rows import Rows
from raymdm.models import Backbone


@torch.no_grad()
def gives_back(
    model: Backbone, rows: Rows, *, batch_size: int = 256, guidance: float = 0.0
) -> list[bool]:
    """Whether plain greedy decoding of as many tokens gives each continuation back.

    A masked model writes the most confident token of the whole continuation at every step. A row
    is over at the first token that is another, mostly after one forward; one that is given back
    takes as many as it has tokens. Of a causal model one forward tells all.

    Args:
        model: the backbone; the mask token is never written.
        rows: B rows, the continuation being the eligible tokens.
        batch_size: rows of one forward; does not change the result beyond rounding.
        guidance: w of classifier-free guidance (masked models).
    """
    settings = DecodingSection(guidance=guidance)
    found: list[bool] = []
    for start in range(0, len(rows), batch_size):
        part = rows.slice(start, start + batch_size)
        if model.shape.causal:
            found += _all_most_probable(model, part).tolist()
        else:
            found += _revealed(model, part, settings).tolist()
    return found


def _all_most_probable(model: Backbone, rows: Rows) -> Tensor:
    """bool[B]: whether each token is the most probable one after those before it."""
    logits = model(rows.input_ids, rows.attention_mask, select=rows.eligible)
    logits[:, model.shape.mask_token_id] = -torch.inf
    right = torch.ones_like(rows.eligible)
    right[rows.eligible] = logits.argmax(-1) == rows.input_ids[rows.eligible]
    return right.all(-1)


def _revealed(model: Backbone, rows: Rows, settings: DecodingSection) -> Tensor:
    """bool[B]: whether revealing the most confident token, step by step, never goes astray."""
    mask, hidden = model.shape.mask_token_id, rows.eligible.clone()
    right = torch.ones(len(rows), dtype=torch.bool, device=hidden.device)
    while len(working := (right & hidden.any(-1)).nonzero()[:, 0]):
        select, ids, real = hidden[working], rows.input_ids[working], rows.attention_mask[working]
        shown = ids.masked_fill(select, mask)
        logits = model(shown, real, select=select)
        if settings.guidance:
            prompt = real & ~rows.eligible[working]
            without = model(shown.masked_fill(prompt, mask), real, select=select)
            logits = torch.cat([logits, without])
        prediction = predict(logits, settings, model.shape, None)
        confidence = torch.full(ids.shape, -torch.inf, dtype=prediction.confidence.dtype).to(
            ids.device
        )
        confidence[select] = prediction.confidence
        predicted = ids.masked_scatter(select, prediction.tokens)
        best = confidence.argmax(-1, keepdim=True)  # the leftmost of equals
        right[working] = (predicted.gather(1, best) == ids.gather(1, best))[:, 0]
        hidden[working] = select.scatter(1, best, False)
    return right
