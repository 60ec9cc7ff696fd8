"""What a run's estimator learns from its own losses: live decomposition, EMA, adaptive density.

Every worker holds the same copy, made from the gathered losses of the whole global batch in slot
order, so nothing here depends on the number of workers. It is part of the checkpoint.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed

from raymdm.config import Config
from raymdm.diffusion import Estimator, TimeDensity
from raymdm.diffusion.control import MovingAverage
from raymdm.diffusion.stream import StreamMoments, drift, effective_sample_size
from raymdm.diffusion.time import ImportanceTime
from raymdm.training.run_directory import RunDirectory


class TrainingStream:
    """Statistics of the stream, and the estimator as they have made it so far."""

    def __init__(self, config: Config, run: RunDirectory, estimator: Estimator) -> None:
        section = config.estimator
        self.section, self.run, self.estimator = section, run, estimator
        self.moments = StreamMoments(section.density.adaptive.bins, section.forgetting)
        control = section.control
        self.control = (
            MovingAverage(control.bins, control.decay, control.coefficient)
            if control.kind == "ema"
            else None
        )
        self.adaptive = section.time.sampler == "importance" and section.density.kind == "ap"

    def offsets(self, t: np.ndarray, weight: np.ndarray, denominators: np.ndarray) -> np.ndarray:
        """What the control variate adds to the weighted losses[B] of these rows."""
        if self.control is None:
            return np.zeros_like(weight)
        return self.control.offsets(t, weight, denominators)

    def update(
        self,
        step: int,
        t: np.ndarray,
        weight: np.ndarray,
        view_losses: np.ndarray,
        denominators: np.ndarray,
    ) -> dict[str, float]:
        """Take in a finished step; its columns of the metrics. Every rank must call it.

        Args:
            step: steps done, this one included.
            t: float64[N] of the global batch, in slot order; likewise the others.
            weight: float64[N].
            view_losses: float64[K, N], unweighted.
            denominators: float64[N].
        """
        # In either normalisation the step's loss is the weighted mean over rows of these values.
        values = view_losses * (len(t) / denominators.sum())
        if self.section.masker.kind == "complement":
            # Its views differ by their rates, not by their masks only.
            values = values.mean(0, keepdims=True)
        self.moments.update(t, weight, values)
        if self.control is not None:
            self.control.update(t, view_losses.mean(0), denominators)
        parts = self.moments.parts()
        columns = {
            "effective_sample_size": effective_sample_size(weight),
            "weight_min": float(weight.min()),
            "weight_max": float(weight.max()),
            "variance_between_views": parts.views,
            "variance_between_rates": parts.rates,
            "variance_between_rows": parts.rows,
        }
        if self.adaptive:
            refits = step % self.section.density.adaptive.refit_every == 0
            columns["density_drift"] = self._refit() if refits else float("nan")
        return columns

    def state(self) -> dict[str, Any]:
        """For the checkpoint; JSON keeps every digit."""
        state: dict[str, Any] = {"moments": self.moments.state()}
        if self.control is not None:
            state["control"] = self.control.state()
        if self.adaptive:
            state["density"] = self._density().cells.tolist()
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """As it was when the checkpoint was saved."""
        self.moments.restore(state["moments"])
        if self.control is not None:
            self.control.restore(state["control"])
        if self.adaptive:
            self._switch(TimeDensity(np.array(state["density"]), {"kind": "ap"}))

    def _refit(self) -> float:
        """Fit on rank 0, switch on all; how far the density moved."""
        box: list[TimeDensity | None] = [None]
        if torch.distributed.get_rank() == 0:
            density = self.section.density
            box = [self.moments.density(density.target, density.mixing)]
        if torch.distributed.get_world_size() > 1:
            torch.distributed.broadcast_object_list(box, src=0)
        (fitted,) = box
        if fitted is None:  # half of the bins have seen no loss yet
            return 0.0
        moved = drift(self._density(), fitted)
        self._switch(fitted)
        if torch.distributed.get_rank() == 0:
            fitted.save(self.run.density)
        return moved

    def _density(self) -> TimeDensity:
        assert isinstance(self.estimator.time, ImportanceTime)
        return self.estimator.time.density

    def _switch(self, density: TimeDensity) -> None:
        self.estimator = replace(self.estimator, time=ImportanceTime(density))
