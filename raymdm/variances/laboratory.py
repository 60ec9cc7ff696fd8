"""One process's model, rows and sketch: what every measurement of `variance` is made with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raymdm.config import Config
from raymdm.config.estimator import EstimatorSection
from raymdm.config.loading import fingerprint
from raymdm.diffusion import Estimator, Rows, TimeDensity, make_estimator
from raymdm.diffusion.compose import unweighted
from raymdm.diffusion.control import MovingAverage
from raymdm.diffusion.gradients import (
    Sketch,
    batch_gradient,
    freeze_others,
    gradient_parameters,
    row_gradients,
)
from raymdm.diffusion.noise import mask_noise
from raymdm.randomness import generator
from raymdm.training import RunDirectory
from raymdm.training.engine_run import pick_device
from raymdm.training.job import make_job, read_rows
from raymdm.training.starting import trained_model

# Places in the stream "probe", under the first word 0; the probes use 0 to 3.
_BATCH_ROWS, _HALVES = 6, 7


@dataclass(frozen=True)
class Contender:
    """An estimator to be measured, with all that it needs.

    Attributes:
        name: as the user gave it.
        section: its composition.
        density: fitted, under importance sampling from a probed or adaptive kind.
        control: warmed up, under a control variate.
    """

    name: str
    section: EstimatorSection
    density: TimeDensity | None = None
    control: MovingAverage | None = None

    @property
    def estimator(self) -> Estimator:
        """The composition."""
        return make_estimator(self.section, self.density)

    @property
    def estimator_of_views(self) -> Estimator:
        """The same law and views at uniform rates: what a probe runs."""
        return make_estimator(unweighted(self.section))

    @property
    def key(self) -> str:
        """Changes with anything that its measurement depends on; part of a file name."""
        density = None if self.density is None else self.density.cells.tolist()
        control = None if self.control is None else self.control.state()
        return fingerprint({"section": self.section.model_dump(), "f": density, "b": control})


@dataclass(frozen=True)
class BatchDraw:
    """One global batch under one estimator.

    Attributes:
        t: float64[N].
        weight: float64[N].
        view_losses: float64[K, N], unweighted.
        denominators: float64[N].
        loss: of the batch.
        gradient: float64[dimension], sketched; None where only the loss was asked for.
    """

    t: np.ndarray
    weight: np.ndarray
    view_losses: np.ndarray
    denominators: np.ndarray
    loss: float
    gradient: np.ndarray | None


class Laboratory:
    """Everything is addressed by the run's seed: any process gives the same numbers."""

    def __init__(self, config: Config) -> None:
        self.config, self.section, self.seed = config, config.variance, config.seed
        torch.set_num_threads(config.training.threads_per_worker)
        job = make_job(config, RunDirectory(Path(config.run_dir)))
        self.job = job
        self.device = pick_device(config)
        self.model = trained_model(config, job.shape, self.device)
        self.parameters = gradient_parameters(self.model, self.section.parameters)
        freeze_others(self.model, self.parameters)
        self.sketch = Sketch(self.seed, self.section.sketch, self.parameters)
        fit, measure = halves(self.seed, len(job.train))
        self.fit_rows, self.measured_rows = fit, measure

    def rows(self, numbers: np.ndarray, samples: Sequence[int]) -> Rows:
        """Training rows by number, under these sample numbers (the address of their masks)."""
        return read_rows(self.job, numbers, samples).to(self.device)

    def single(
        self, estimator: Estimator, row: Rows, t: float, noise: Tensor
    ) -> tuple[float, np.ndarray, float]:
        """Loss, sketched gradient and exact squared norm of it, of one row with one mask.

        Args:
            estimator: with one view.
            row: a single row.
            t: its rate.
            noise: float64[1, 1, L].
        """
        losses = estimator.row_losses(
            self.model, self.job.shape.mask_token_id, row, np.array([t]), noise
        )
        sketches, squares = row_gradients(losses, self.parameters, self.sketch)
        return float(losses.detach()), sketches[0].cpu().numpy(), float(squares)

    def batch(
        self, contender: Contender, numbers: np.ndarray, step: int, *, gradient: bool = True
    ) -> BatchDraw:
        """One global batch of these rows, with the rates and masks of `step`.

        The rows may repeat: each slot has masks of its own, so that rows are independent draws.
        """
        estimator, count = contender.estimator, len(numbers)
        batch = self.rows(numbers, list(range(count)))
        t = estimator.draw_time(self.seed, step, count)
        weight = estimator.weights(batch, t)
        length = batch.input_ids.shape[1]
        noise = mask_noise(self.seed, step, batch.samples, length, estimator.law.replicas)
        denominators = estimator.row_denominators(batch).double().cpu().numpy()
        offsets = np.zeros(count)
        if contender.control is not None:
            offsets = contender.control.offsets(t, weight, denominators)
        share = count // self.config.cluster.workers
        size = min(self.config.training.micro_batch_size or share, count)
        sketched = np.zeros(self.sketch.dimension) if gradient else None
        losses = []
        for start in range(0, count, size):
            stop = min(start + size, count)
            part = batch.slice(start, stop)
            with torch.set_grad_enabled(gradient):
                values = estimator.view_losses(
                    self.model,
                    self.job.shape.mask_token_id,
                    part,
                    t[start:stop],
                    noise[:, start:stop, : part.input_ids.shape[1]],
                )
                weighted = values.mean(0) * torch.from_numpy(weight[start:stop]).to(values)
            losses.append(values.detach().double().cpu().numpy())
            if sketched is not None:
                total = weighted.sum() / float(denominators.sum())
                sketched += batch_gradient(total, self.parameters, self.sketch).cpu().numpy()
        view_losses = np.concatenate(losses, axis=1)
        loss = float((weight * view_losses.mean(0) + offsets).sum() / denominators.sum())
        return BatchDraw(t, weight, view_losses, denominators, loss, sketched)

    def drawn_rows(self, pool: np.ndarray, group: int) -> np.ndarray:
        """The rows of batch `group`: independent draws from the pool, int64[N]."""
        random = generator(self.seed, "probe", 0, _BATCH_ROWS, group)
        return pool[random.integers(len(pool), size=self.config.training.batch_size)]


def halves(seed: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Training rows for fitting densities, and the others for measuring them."""
    order = generator(seed, "probe", 0, _HALVES).permutation(rows)
    return order[: rows // 2], order[rows // 2 :]


def plain(section: EstimatorSection) -> EstimatorSection:
    """Standard, with the epsilon and normalisation of a composition."""
    return EstimatorSection(epsilon=section.epsilon, normalize=section.normalize)


def reflected(noise: Tensor) -> Tensor:
    """The noise of MIRROR's second view."""
    return 1.0 - noise
