"""Probe a model for the curve that a density is fitted to: sqrt(E[l²|t]) over the whole of (0,1).

The expectation is over rows and masks, so it holds the whole conditional second moment g² + v
(paper, section 4.1). Everything is addressed by the seed and runs in micro-batches of a fixed size,
in row order, summed in float64: the result does not depend on the cluster.
"""

import numpy as np
import torch
from torch import nn

from raymdm.diffusion.estimator import Estimator
from raymdm.diffusion.noise import generator, mask_noise
from raymdm.diffusion.rows import Rows


@torch.no_grad()
def probe_loss(
    model: nn.Module,
    mask_token_id: int,
    rows: Rows,
    estimator: Estimator,
    *,
    seed: int,
    rates: int = 64,
    masks: int = 4,
    batch_size: int = 64,
    part: int = 0,
    parts: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """The probe curve: t[T] and sqrt(E[l²|t])[T], float64.

    Args:
        model: as `Estimator.row_losses` calls it.
        mask_token_id: the id that replaces masked tokens.
        rows: the S training rows probed at every rate.
        estimator: the run's composition; its masker and objective are used, its time sampler not.
        seed: the run's seed.
        rates: T, one rate in each of T equal strata of (0,1).
        masks: M masks per row and rate.
        batch_size: rows of one forward, views not counted.
        part: which share of the rates to measure; the others stay NaN.
        parts: shares: workers divide the rates, and each rate comes out as it would for one.
    """
    offsets = generator(seed, "probe", 0).random(rates)
    t = (np.arange(rates) + offsets) / rates
    replicas = estimator.law.replicas
    length = rows.input_ids.shape[1]
    second_moment = np.full(rates, np.nan)
    for index, rate in list(enumerate(t))[part::parts]:
        noise = mask_noise(seed, index + 1, rows.samples, length, masks * replicas, "probe")
        values = []
        for draw in range(masks):
            plane = noise[draw * replicas : (draw + 1) * replicas]
            for start in range(0, len(rows), batch_size):
                chunk = rows.slice(start, start + batch_size)
                losses = estimator.row_losses(
                    model,
                    mask_token_id,
                    chunk,
                    np.full(len(chunk), rate),
                    plane[:, start : start + batch_size, : chunk.input_ids.shape[1]],
                )
                values.append(losses.double().cpu().numpy())
        second_moment[index] = np.mean(np.concatenate(values) ** 2)
    return t, np.sqrt(second_moment)


def positive(moments: np.ndarray) -> np.ndarray:
    """The curve with zeros (rates at which no mask hit any token) at its least positive value."""
    return np.maximum(moments, moments[moments > 0].min(initial=np.inf))
