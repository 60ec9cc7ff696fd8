"""The loss estimator as one composition: stratification, time sampler, law.

For a row x0 with eligible positions E, n = |E|, a mask rate t and a mask m, plain training takes

    l(x0, t, m) = (1/n) sum over i in E, m_i = 1 of  CE_i / alpha(t),   alpha(t) = (1 - eps) t + eps

and a step's loss is (1/N) sum_s w_s · mean over views of l_s, N the rows of the *global* batch.
A row whose mask is empty contributes 0 and keeps its place in N. Other laws (exact counts, raised
delimiter rates, next-token prediction) replace the masks and the 1/alpha.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from raymdm.diffusion.cross_entropy import cross_entropy_sums
from raymdm.diffusion.law import Law, Views
from raymdm.diffusion.noise import mask_noise
from raymdm.diffusion.rows import Rows
from raymdm.diffusion.stratify import Stratify
from raymdm.diffusion.time import TimeSampler


@dataclass(frozen=True)
class Estimator:
    """A training signal; see the module. Build one with `make_estimator`."""

    time: TimeSampler
    law: Law
    stratify: Stratify
    normalize: Literal["sample", "token"] = "sample"
    with_syntax: bool = False
    """The prompt's syntax tokens are eligible too (SyRM)."""

    def draw_time(self, seed: int, step: int, batch_size: int) -> np.ndarray:
        """t[N] of the whole global batch of a step, float64; every worker computes all."""
        return self.time(self.stratify(seed, step, batch_size))

    def draw_noise(self, seed: int, epoch: int | np.ndarray, rows: Rows) -> Tensor:
        """U[replicas, B, L] of the rows, by their sample numbers and epochs (one, or int64[B])."""
        length = rows.input_ids.shape[1]
        return mask_noise(seed, epoch, rows.samples, length, self.law.replicas)

    def eligible(self, rows: Rows) -> Tensor:
        """bool[B, L]: E, the positions that may be masked."""
        if not self.with_syntax:
            return rows.eligible
        assert rows.syntax is not None
        return rows.eligible | rows.syntax

    def weights(self, rows: Rows, t: np.ndarray) -> np.ndarray:
        """Importance weights of the rows, float64[B]."""
        return self.law.weight(self.time, t, self.eligible(rows).sum(-1).cpu().numpy())

    def views(self, rows: Rows, t: np.ndarray, noise: Tensor) -> Views:
        """What every view hides and predicts."""
        return self.law.draw(t, noise, self.eligible(rows), rows.delimiters)

    def view_losses(
        self, model: nn.Module, mask_token_id: int, rows: Rows, t: np.ndarray, noise: Tensor
    ) -> Tensor:
        """Unweighted loss values[K, B] of every view (at least fp32, with gradient).

        All views go through one forward of K × B rows, and logits are computed at predicted
        positions only.

        Args:
            model: called as model(input_ids, attention_mask, select=bool[K·B, L]) -> logits[M, V].
            mask_token_id: the id that replaces hidden tokens.
            rows: B rows of up to L tokens.
            t: float64[B], the rows' mask rates.
            noise: float64[replicas, B, L].
        """
        views = self.views(rows, t, noise)
        count, batch, length = views.hidden.shape
        tokens = rows.input_ids.repeat(count, 1)
        sums = cross_entropy_sums(
            model,
            tokens.masked_fill(views.hidden.reshape(-1, length), mask_token_id),
            rows.attention_mask.repeat(count, 1),
            tokens,
            views.predicted.reshape(-1, length),
            views.coefficients.reshape(-1, length),
        )
        values = sums.view(count, batch)
        return values / self.lengths(rows) if self.normalize == "sample" else values

    def row_losses(
        self, model: nn.Module, mask_token_id: int, rows: Rows, t: np.ndarray, noise: Tensor
    ) -> Tensor:
        """Unweighted loss values[B]: the mean of `view_losses` over the views.

        Multiply by `weights`, sum over the global batch, and divide by the global sum of
        `row_denominators`.
        """
        return self.view_losses(model, mask_token_id, rows, t, noise).mean(0)

    def lengths(self, rows: Rows) -> Tensor:
        """n[B], int64: eligible positions of every row."""
        return self.eligible(rows).sum(-1)

    def row_denominators(self, rows: Rows) -> Tensor:
        """What each row adds to the global denominator[B]: 1 per row, or its eligible tokens."""
        lengths = self.lengths(rows)
        return torch.ones_like(lengths) if self.normalize == "sample" else lengths
