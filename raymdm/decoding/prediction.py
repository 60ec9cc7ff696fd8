"""From the logits of masked positions to a token and a confidence for each."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from raymdm.config.decoding import DecodingSection
from raymdm.decoding.confidence import confidence, probability
from raymdm.decoding.sampling import draw, log_probability
from raymdm.models import ModelShape
from raymdm.models.rotary import widened

AT_ONCE = {"cpu": 2**19, "cuda": 2**26}
"""Logits that are worked on at a time, whatever the batch and the vocabulary: what a CPU's cache
holds (noise took 2.9 times as long where it did not); a GPU rather wants few and large kernels."""


@dataclass(frozen=True)
class Prediction:
    """Of M positions.

    Attributes:
        tokens: int64[M], never the mask token.
        confidence: [M], what ranks the positions.
        probability: [M] of the tokens under the model's own distribution.
        log_probability: [M] of the tokens under the distribution they were drawn from; None where
            it was not asked for.
    """

    tokens: Tensor
    confidence: Tensor
    probability: Tensor
    log_probability: Tensor | None = None


def predict(
    logits: Tensor,
    settings: DecodingSection,
    shape: ModelShape,
    noise: Tensor | None,
    *,
    log_probabilities: bool = False,
) -> Prediction:
    """Predict M positions.

    Args:
        logits: [M, V] in any dtype; with guidance [2M, V], those without the prompt in the second
            half. They may be changed.
        settings: guidance, eos, sampling and confidence.
        shape: names the tokens that are not written.
        noise: float64[2, M] in [0, 1): for the token, and for a random order; None where neither is
            needed.
        log_probabilities: give `Prediction.log_probability` too; needs a temperature above 0.
    """
    guided, free = logits.chunk(2) if settings.guidance else (logits, None)
    parts = []
    for part in _pieces(guided):
        raw = _raw(guided[part], None if free is None else free[part], settings)
        drawn = None if noise is None else noise[:, part]
        parts.append(_predict(raw, settings, shape, drawn, log_probabilities))
    tokens, confident, likely, *drawn_from = (torch.cat(part) for part in zip(*parts, strict=True))
    return Prediction(tokens, confident, likely, *drawn_from)


def log_probabilities(
    logits: Tensor, tokens: Tensor, settings: DecodingSection, shape: ModelShape
) -> Tensor:
    """Log-probabilities [M], in at least float32, of tokens under the distribution that `predict`
    draws from: guided, tempered, without the mask token, cut by top-p and top-k (see
    `sampling.log_probability`).

    Differentiable by the logits; what it needs beside them is held for a few positions at a time,
    and computed again in the backward pass.

    Args:
        logits: [M, V] in any dtype; with guidance [2M, V], as for `predict`. They stay as they are.
        tokens: int64[M].
        settings: guidance, eos, temperature (above 0), top_p and top_k.
        shape: names the tokens that are not written.
    """
    guided, free = logits.chunk(2) if settings.guidance else (logits, None)
    of_piece = partial(_log_probabilities, settings=settings, shape=shape)
    pieces, found = _pieces(guided), []
    for part in pieces:
        given = guided[part], None if free is None else free[part], tokens[part]
        if len(pieces) > 1 and torch.is_grad_enabled():
            found.append(checkpoint(of_piece, *given, use_reentrant=False))
        else:
            found.append(of_piece(*given))
    return torch.cat(found)


def _pieces(logits: Tensor) -> list[slice]:
    """Positions that are worked on together, of [M, V]; at least one piece."""
    positions, tokens = logits.shape
    size = max(1, AT_ONCE.get(logits.device.type, 2**26) // tokens)
    return [slice(start, start + size) for start in range(0, max(positions, 1), size)]


def _raw(given: Tensor, free: Tensor | None, settings: DecodingSection) -> Tensor:
    """The guided logits, in at least float32; perhaps the given ones themselves."""
    raw = given.to(widened(given.dtype))
    if free is None:
        return raw
    return torch.lerp(free.to(raw.dtype), raw, settings.guidance + 1)


def _unwritten(settings: DecodingSection, shape: ModelShape) -> list[int]:
    """Tokens that are never written."""
    never = settings.eos == "never"
    return [shape.mask_token_id, *([shape.eos_token_id] if never else [])]


def _log_probabilities(
    given: Tensor,
    free: Tensor | None,
    tokens: Tensor,
    settings: DecodingSection,
    shape: ModelShape,
) -> Tensor:
    unwritten = torch.tensor(_unwritten(settings, shape), device=given.device)
    written = _raw(given, free, settings).index_fill(1, unwritten, -torch.inf)
    return log_probability(written, tokens, settings)


def _predict(
    logits: Tensor,
    settings: DecodingSection,
    shape: ModelShape,
    noise: Tensor | None,
    log_probabilities: bool,
) -> tuple[Tensor, ...]:
    """The attributes of a `Prediction`, of logits that are all there is, in at least float32."""
    token_noise, order = (None, None) if noise is None else noise
    normalizer = logits.logsumexp(-1)
    unwritten = _unwritten(settings, shape)
    own = logits[:, unwritten]
    logits[:, unwritten] = -torch.inf
    tokens = draw(logits, settings, token_noise)
    drawn_from = [log_probability(logits, tokens, settings)] if log_probabilities else []
    logits[:, unwritten] = own  # confidence is of the model's own distribution
    likely = probability(logits, tokens, normalizer)
    ranked = likely
    if settings.confidence != "probability":
        ranked = confidence(settings.confidence, logits, tokens, normalizer, order)
    return tokens, ranked, likely, *drawn_from
