"""Steps whose rows come from several sources, in constant shares."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from raymdm.config.data import DataSection
from raymdm.data.order import Order, Steps, WindowOrder
from raymdm.data.rows import TrainingRows
from raymdm.errors import ConfigurationError, DataError
from raymdm.randomness import generator


def make_order(section: DataSection, rows: TrainingRows, seed: int, batch_size: int) -> Steps:
    """The order of a run's rows.

    Raises:
        ConfigurationError: a source is given no row of a batch.
        DataError: a source has fewer rows than a batch takes of it.
    """
    shares = quotas([source.weight for source in section.sources] or [1.0], batch_size)
    parts: list[Any] = []
    for number, (fragments, share) in enumerate(zip(rows.sources, shares, strict=True)):
        counts = tuple(fragment.rows for fragment in fragments)
        if len(shares) > 1 and sum(counts) < share:
            raise DataError(
                f"data.sources.{number} has {sum(counts)} rows and gives {share} to every batch; "
                "give it more files, a smaller weight, or set a smaller training.batch_size"
            )
        if section.shuffle == "window":
            parts.append(WindowOrder(seed, counts, share, section.window_blocks, number))
        else:
            parts.append(Order(seed, sum(counts), share, number))
    return parts[0] if len(parts) == 1 else MixedOrder(seed, tuple(parts))


def describe_quotas(rows: TrainingRows, order: Steps) -> str | None:
    """One line on a mixture's constant shares; None where there is one source."""
    if not isinstance(order, MixedOrder):
        return None
    parts = zip(rows.files, order.parts, strict=True)
    shares = ", ".join(f"{part.batch_size} of {files[0].path}" for files, part in parts)
    return f"rows of every step by source: {shares}"


def quotas(weights: Sequence[float], batch_size: int) -> list[int]:
    """Rows of each source in every global batch: in proportion to the weights, whole numbers by
    largest remainders (of equal ones the earlier source's).

    Raises:
        ConfigurationError: a source gets no row; names it and the smallest batch that would do.
    """
    found = _largest_remainders(weights, batch_size)
    if 0 not in found:
        return found
    enough = batch_size + 1
    while 0 in _largest_remainders(weights, enough):
        enough += 1
    number = found.index(0)
    raise ConfigurationError(
        f"data.sources.{number}.weight {weights[number]:g} gives this source no row in a "
        f"training.batch_size of {batch_size}; use {enough} or more, or a larger weight"
    )


def _largest_remainders(weights: Sequence[float], batch_size: int) -> list[int]:
    exact = np.array(weights) / sum(weights) * batch_size
    found = np.floor(exact).astype(int)
    # Rounded: shares that are equal on paper must not differ in the last bit.
    order = np.argsort(-np.round(exact - found, 9), kind="stable")
    found[order[: batch_size - found.sum()]] += 1
    return [int(quota) for quota in found]


@dataclass(frozen=True)
class MixedOrder(Steps):
    """Every source in its own order with epochs of its own, its rows spread over the slots of each
    step by a permutation that differs from step to step.

    Sample numbers (and numbers of fragments) count on from source to source.

    Attributes:
        seed: of the run.
        parts: the order of each source; their batch sizes are the quotas.
    """

    seed: int
    parts: tuple[Order, ...] | tuple[WindowOrder, ...]

    @cached_property
    def rows(self) -> int:  # type: ignore[override]
        """Training rows of all sources."""
        return sum(part.rows for part in self.parts)

    @cached_property
    def batch_size(self) -> int:  # type: ignore[override]
        """Rows of a global batch."""
        return sum(part.batch_size for part in self.parts)

    @property
    def steps_per_epoch(self) -> int:  # type: ignore[override]
        """Steps in which every source has been passed through once."""
        return max(part.steps_per_epoch for part in self.parts)

    def samples(self, step: int) -> np.ndarray:
        """int64[batch_size]: the sample number in every slot of the step's global batch."""
        firsts = _before([part.rows for part in self.parts])
        found = [first + part.samples(step) for first, part in zip(firsts, self.parts, strict=True)]
        return np.concatenate(found)[self._slots(step)]

    def epoch(self, step: int) -> int:
        """The furthest source's epoch."""
        return max(part.epoch(step) for part in self.parts)

    def epochs(self, step: int) -> np.ndarray:
        """int64[batch_size]: the epoch that the row in every slot is in."""
        return np.concatenate([part.epochs(step) for part in self.parts])[self._slots(step)]

    def until(self, step: int) -> int | None:
        """Where the window that lasts longest ends."""
        ends = [end for part in self.parts if (end := part.until(step)) is not None]
        return max(ends, default=None)

    def fragments(self, step: int) -> np.ndarray | None:
        """Numbers of the fragments that the sources' windows at this step touch."""
        windows = [part for part in self.parts if isinstance(part, WindowOrder)]
        if not windows:
            return None
        firsts = _before([len(part.fragment_rows) for part in windows])
        touched = zip(firsts, windows, strict=True)
        return np.concatenate([first + part.fragments(step) for first, part in touched])

    def _slots(self, step: int) -> np.ndarray:
        return generator(self.seed, "slots", step).permutation(self.batch_size)


def _before(counts: list[int]) -> np.ndarray:
    return np.cumsum(counts) - counts
