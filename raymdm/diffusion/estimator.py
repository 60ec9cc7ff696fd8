"""The loss estimator as one composition: objective, time sampler, masker.

For a row x0 with eligible positions E, n = |E|, a mask rate t and a mask m,

    l(x0, t, m) = (1/n) sum over i in E, m_i = 1 of  CE_i / alpha(t),   alpha(t) = (1 - eps) t + eps

and a step's loss is (1/N) sum_s w_s · mean over views of l_s, N the rows of the *global* batch.
A row whose mask is empty contributes 0 and keeps its place in N.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from raymdm.config.estimator import EstimatorSection
from raymdm.config.loading import read_file, validate
from raymdm.diffusion.density import TimeDensity
from raymdm.diffusion.masking import IndependentMasker, Masker, MirrorMasker
from raymdm.diffusion.noise import mask_noise, time_noise
from raymdm.diffusion.rows import Rows
from raymdm.diffusion.time import ImportanceTime, TimeDraw, TimeSampler, UniformTime
from raymdm.errors import ConfigurationError


@dataclass(frozen=True)
class Estimator:
    """A training signal; see the module. Build one with `make_estimator`."""

    time: TimeSampler
    masker: Masker
    epsilon: float = 1e-3
    normalize: Literal["sample", "token"] = "sample"

    def mask_probability(self, t: np.ndarray) -> np.ndarray:
        """alpha(t) in [epsilon, 1]: each position is masked with it, its CE divided by it."""
        return (1.0 - self.epsilon) * t + self.epsilon

    def draw_time(self, seed: int, step: int, batch_size: int) -> TimeDraw:
        """t[N] and weight[N] of the whole global batch of a step; every worker computes all."""
        return self.time(time_noise(seed, step, batch_size))

    def draw_noise(self, seed: int, epoch: int, rows: Rows) -> Tensor:
        """U[replicas, B, L] of the rows, by their sample numbers."""
        length = rows.input_ids.shape[1]
        return mask_noise(seed, epoch, rows.samples, length, self.masker.replicas)

    def masks(self, rows: Rows, t: np.ndarray, noise: Tensor) -> Tensor:
        """bool[views, B, L]: the positions that each view masks, eligible ones only."""
        alpha = torch.from_numpy(self.mask_probability(t)).to(rows.eligible.device)
        return self.masker.masks(noise.to(alpha.device), alpha) & rows.eligible

    def row_losses(
        self, model: nn.Module, mask_token_id: int, rows: Rows, t: np.ndarray, noise: Tensor
    ) -> Tensor:
        """Unweighted loss values[B] (fp32, with gradient), averaged over the views.

        All views go through one forward of views × B rows, and logits are computed at masked
        positions only. Divide the weighted global sum by the global sum of `row_denominators`.

        Args:
            model: called as model(input_ids, attention_mask, select=bool[K·B, L]) -> logits[M, V].
            mask_token_id: the id that replaces masked tokens.
            rows: B rows of up to L tokens.
            t: float64[B], the rows' mask rates.
            noise: float64[replicas, B, L].
        """
        masks = self.masks(rows, t, noise)
        views, batch, length = masks.shape
        flat = masks.reshape(views * batch, length)
        sums = masked_cross_entropy(
            model,
            rows.input_ids.repeat(views, 1),
            rows.attention_mask.repeat(views, 1),
            flat,
            mask_token_id,
        )
        alpha = torch.from_numpy(self.mask_probability(t)).to(sums)
        values = sums.view(views, batch).mean(0) / alpha
        return values / rows.response_lengths if self.normalize == "sample" else values

    def row_denominators(self, rows: Rows) -> Tensor:
        """What each row adds to the global denominator[B]: 1 per row, or its response tokens."""
        lengths = rows.response_lengths
        return torch.ones_like(lengths) if self.normalize == "sample" else lengths


def masked_cross_entropy(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor, masked: Tensor, mask_token_id: int
) -> Tensor:
    """Sum of the cross-entropies at the masked positions of each row, fp32[R] (0 where none).

    Args:
        model: called as model(input_ids, attention_mask, select=masked) -> logits[M, V].
        input_ids: int64[R, L], clean tokens.
        attention_mask: bool[R, L].
        masked: bool[R, L], M of them true.
        mask_token_id: the id put in their place.
    """
    corrupted = input_ids.masked_fill(masked, mask_token_id)
    logits = model(corrupted, attention_mask, select=masked)
    precision = torch.promote_types(logits.dtype, torch.float32)
    losses = functional.cross_entropy(logits.to(precision), input_ids[masked], reduction="none")
    row = masked.nonzero()[:, 0]
    return torch.zeros(len(input_ids), dtype=precision, device=losses.device).index_add(
        0, row, losses
    )


def make_estimator(
    config: EstimatorSection | Mapping[str, Any] | str, density: TimeDensity | None = None
) -> Estimator:
    """The composition that a configuration (or the name of a shipped preset) describes.

    Args:
        config: an `EstimatorSection`, the same as a mapping, or a preset's name such as `mirror`.
        density: the fitted density, needed by importance sampling.

    Raises:
        ConfigurationError: unknown preset or keys, or importance sampling without a density.
    """
    if not isinstance(config, EstimatorSection):
        content = read_file(f"estimators/{config}") if isinstance(config, str) else None
        config = validate(content or {"estimator": config}).estimator
    if config.time.sampler == "importance" and density is None:
        raise ConfigurationError(
            "estimator.time.sampler importance needs a density: fit one with fit_density, "
            "or train, which probes the model for it"
        )
    time: TimeSampler = UniformTime()
    if config.time.sampler == "importance" and density is not None:
        time = ImportanceTime(density)
    masker = (
        MirrorMasker() if config.masker.kind == "mirror" else IndependentMasker(config.masker.views)
    )
    return Estimator(
        time=time,
        masker=masker,
        epsilon=config.epsilon,
        normalize=config.normalize,
    )
