"""Which rows make up which optimiser step: a pure function of (seed, step)."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from raymdm.diffusion.noise import permutation
from raymdm.errors import DataError


@dataclass(frozen=True)
class Order:
    """Global batches of a run. An epoch is a fresh permutation of the samples, cut into full
    batches; the few rows left over differ from epoch to epoch.

    Attributes:
        seed: of the run.
        rows: training rows N.
        batch_size: rows of a global batch.
    """

    seed: int
    rows: int
    batch_size: int

    def __post_init__(self) -> None:
        if self.rows < self.batch_size:
            raise DataError(
                f"{self.rows} training rows do not fill one global batch of {self.batch_size}; "
                "prepare more rows or set a smaller training.batch_size"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass."""
        return self.rows // self.batch_size

    def epoch(self, step: int) -> int:
        """Epoch of a step, both counted from 0."""
        return step // self.steps_per_epoch

    def samples(self, step: int) -> np.ndarray:
        """int64[batch_size]: the sample number in every slot of the step's global batch."""
        start = (step % self.steps_per_epoch) * self.batch_size
        return _permutation(self.seed, self.epoch(step), self.rows)[start : start + self.batch_size]

    def share(self, step: int, part: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
        """Slots and samples of one of `parts` equal shares of a step, each int64[batch/parts]."""
        size = self.batch_size // parts
        slots = np.arange(part * size, (part + 1) * size)
        return slots, self.samples(step)[slots]


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, rows: int) -> np.ndarray:
    return permutation(seed, epoch, rows)
