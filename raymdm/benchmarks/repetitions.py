"""A text with right answers that a tiny model learns in a minute: a key, repeated with a shift.

The prompt is a key of some letters. The response repeats it over and over, every time one letter on
in the alphabet (z is followed by a). Each letter follows from the one a key's length before it, so
that a mistake goes on to the end, and no more than a key's length is known at once.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from raymdm.models import Backbone

LETTERS = 26


def keys(rows: int, length: int, seed: int) -> np.ndarray:
    """Letters of new keys, int64[rows, length]."""
    return np.random.default_rng(seed).integers(LETTERS, size=(rows, length))


def repeated(key: np.ndarray, length: int) -> np.ndarray:
    """The right responses to keys [rows, key length], int64[rows, length]."""
    turns = -(-length // key.shape[1])
    shifted = key[:, None] + np.arange(1, turns + 1)[:, None]
    return shifted.reshape(len(key), -1)[:, :length] % LETTERS


def teach(
    model: Backbone,
    *,
    key_length: int,
    response_length: int,
    steps: int,
    rows: int = 8,
    learning_rate: float = 3e-3,
) -> list[float]:
    """Train a model on the responses with uniform mask rates; the loss of every step.

    Args:
        model: a masked backbone, changed in place.
        key_length: letters of a key.
        response_length: letters of a response.
        steps: of AdamW, the learning rate rising for a tenth of them and falling to 0.
        rows: of a step, each a new key.
        learning_rate: the highest.
    """
    device = next(model.parameters()).device
    random = np.random.default_rng(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps, pct_start=0.1
    )
    losses = []
    for step in range(steps):
        key = keys(rows, key_length, step)
        ids = torch.from_numpy(np.hstack([key, repeated(key, response_length)])).to(device)
        rate = torch.from_numpy((np.arange(rows) + random.random(rows)) / rows)
        drawn = torch.from_numpy(random.random(ids.shape)) < rate[:, None]
        drawn[:, :key_length] = False
        masked = drawn.to(device)
        logits = model(ids.masked_fill(masked, model.shape.mask_token_id), select=masked)
        loss = functional.cross_entropy(logits.float(), ids[masked])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def exact_match(key: np.ndarray, responses: Sequence[Sequence[int]] | Tensor) -> float:
    """The share of keys whose whole response is right."""
    given = np.asarray(responses)
    return float((given == repeated(key, given.shape[1])).all(1).mean())
