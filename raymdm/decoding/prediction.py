"""From the logits of masked positions to a token and a confidence for each."""

from dataclasses import dataclass

import torch
from torch import Tensor

from raymdm.config.decoding import DecodingSection
from raymdm.decoding.confidence import confidence, probability
from raymdm.decoding.sampling import draw
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
    """

    tokens: Tensor
    confidence: Tensor
    probability: Tensor


def predict(
    logits: Tensor, settings: DecodingSection, shape: ModelShape, noise: Tensor | None
) -> Prediction:
    """Predict M positions.

    Args:
        logits: [M, V] in any dtype; with guidance [2M, V], those without the prompt in the second
            half. They may be changed.
        settings: guidance, eos, sampling and confidence.
        shape: names the tokens that are not written.
        noise: float64[2, M] in [0, 1): for the token, and for a random order; None where neither is
            needed.
    """
    guided, free = logits.chunk(2) if settings.guidance else (logits, None)
    positions, tokens = guided.shape
    size = max(1, AT_ONCE.get(logits.device.type, 2**26) // tokens)
    parts = []
    for start in range(0, max(positions, 1), size):
        part = slice(start, start + size)
        raw = guided[part].to(widened(guided.dtype))
        if free is not None:
            without = free[part].to(raw.dtype)
            raw = torch.lerp(without, raw, settings.guidance + 1)
        parts.append(_predict(raw, settings, shape, None if noise is None else noise[:, part]))
    return Prediction(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _predict(
    logits: Tensor, settings: DecodingSection, shape: ModelShape, noise: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """As `predict`, of logits that are all there is, in at least float32."""
    token_noise, order = (None, None) if noise is None else noise
    normalizer = logits.logsumexp(-1)
    unwritten = [shape.mask_token_id]
    if settings.eos == "never":
        unwritten.append(shape.eos_token_id)
    own = logits[:, unwritten]
    logits[:, unwritten] = -torch.inf
    tokens = draw(logits, settings, token_noise)
    logits[:, unwritten] = own  # confidence is of the model's own distribution
    likely = probability(logits, tokens, normalizer)
    if settings.confidence == "probability":
        return tokens, likely, likely
    return tokens, confidence(settings.confidence, logits, tokens, normalizer, order), likely
