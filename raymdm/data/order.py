"""Which rows make up which optimiser step: a pure function of (seed, step).

`Order` is the full shuffle. `WindowOrder` shuffles without ever holding an epoch's permutation, and
keeps rows that are read together close together: an epoch permutes the fragments, lays their rows
end to end, cuts that sequence into windows of so many full batches, and permutes the rows inside
each window. `mixture.py` takes the rows of a step from several sources.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from raymdm.errors import DataError
from raymdm.randomness import generator, permutation


class Steps:
    """What every order says of a step, counted from 0.

    Attributes:
        rows: training rows N.
        batch_size: rows of a global batch.
        steps_per_epoch: steps in one pass.
    """

    rows: int
    batch_size: int
    steps_per_epoch: int

    def samples(self, step: int) -> np.ndarray:
        """int64[batch_size]: the sample number in every slot of the step's global batch."""
        raise NotImplementedError

    def epoch(self, step: int) -> int:
        """Epoch of a step, counted from 0."""
        return step // self.steps_per_epoch

    def epochs(self, step: int) -> np.ndarray:
        """int64[batch_size]: the epoch that the row in every slot is in."""
        return np.full(self.batch_size, self.epoch(step))

    def share(self, step: int, part: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
        """Slots and samples of one of `parts` equal shares of a step, each int64[batch/parts]."""
        size = self.batch_size // parts
        slots = np.arange(part * size, (part + 1) * size)
        return slots, self.samples(step)[slots]

    def until(self, step: int) -> int | None:
        """The first later step that may need other fragments; None where every step may need any
        of them.
        """
        return None

    def fragments(self, step: int) -> Sequence[int] | np.ndarray | None:
        """The only fragments that steps from this one to `until` need; None means any of them."""
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        # What was computed on the way is a function of the fields and may be large.
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Order(Steps):
    """Global batches of a run. An epoch is a fresh permutation of the samples, cut into full
    batches; the few rows left over differ from epoch to epoch.

    Attributes:
        seed: of the run.
        rows: training rows N.
        batch_size: rows of a global batch.
        source: number of the source of a mixture.
    """

    seed: int
    rows: int
    batch_size: int
    source: int = 0

    def __post_init__(self) -> None:
        _check_rows(self)

    @property
    def steps_per_epoch(self) -> int:  # type: ignore[override]
        """Full batches in one pass."""
        return self.rows // self.batch_size

    def samples(self, step: int) -> np.ndarray:
        """int64[batch_size]: the sample number in every slot of the step's global batch."""
        start = (step % self.steps_per_epoch) * self.batch_size
        return self._permutation(self.epoch(step))[start : start + self.batch_size]

    @cached_property
    def _permutation(self) -> Callable[[int], np.ndarray]:
        return lru_cache(maxsize=2)(
            lambda epoch: permutation(self.seed, epoch, self.rows, self.source)
        )


@dataclass(frozen=True)
class WindowOrder(Steps):
    """Global batches whose rows come from a window of neighbouring fragments.

    What a step needs is computed from the fragments' row counts in memory for the fragments and one
    window. The rows of the last window that fill no batch are left out; they differ from epoch to
    epoch.

    Attributes:
        seed: of the run.
        fragment_rows: rows of each fragment, none of them empty.
        batch_size: rows of a global batch.
        blocks: a window has about as many rows as this many fragments of average size.
        source: number of the source of a mixture.
    """

    seed: int
    fragment_rows: tuple[int, ...]
    batch_size: int
    blocks: int
    source: int = 0

    def __post_init__(self) -> None:
        _check_rows(self)

    @cached_property
    def rows(self) -> int:  # type: ignore[override]
        """Training rows N."""
        return sum(self.fragment_rows)

    @property
    def steps_per_epoch(self) -> int:  # type: ignore[override]
        """Full batches in one pass."""
        return self.rows // self.batch_size

    @cached_property
    def window_steps(self) -> int:
        """Steps of a window: as near as whole batches come to `blocks` average fragments."""
        wanted = self.blocks * self.rows / len(self.fragment_rows)
        return max(1, round(wanted / self.batch_size))

    def samples(self, step: int) -> np.ndarray:
        """int64[batch_size]: the sample number in every slot of the step's global batch."""
        epoch, within = divmod(step, self.steps_per_epoch)
        window, batch = divmod(within, self.window_steps)
        start = batch * self.batch_size
        places = self._window(epoch, window)[start : start + self.batch_size]
        order, ends = self._sequence(epoch)
        at = np.searchsorted(ends, places, side="right")
        numbers = places - ends[at] + self._sizes[order[at]]  # within their fragments
        return self._firsts[order[at]] + numbers

    def until(self, step: int) -> int:
        """The first step of the next window."""
        epoch, within = divmod(step, self.steps_per_epoch)
        stop = (within // self.window_steps + 1) * self.window_steps
        return epoch * self.steps_per_epoch + min(stop, self.steps_per_epoch)

    def fragments(self, step: int) -> np.ndarray:
        """Numbers of the fragments that the step's window touches."""
        epoch, within = divmod(step, self.steps_per_epoch)
        first, stop = self._bounds(within // self.window_steps)
        order, ends = self._sequence(epoch)
        low = np.searchsorted(ends, first, side="right")
        high = np.searchsorted(ends, stop - 1, side="right")
        return order[low : high + 1]

    def _bounds(self, window: int) -> tuple[int, int]:
        size = self.window_steps * self.batch_size
        return window * size, min((window + 1) * size, self.rows)

    @cached_property
    def _sizes(self) -> np.ndarray:
        return np.array(self.fragment_rows)

    @cached_property
    def _firsts(self) -> np.ndarray:
        return np.cumsum(self._sizes) - self._sizes

    @cached_property
    def _sequence(self) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
        """Of an epoch the fragments in their order, and where each ends in the sequence of rows."""

        def laid_out(epoch: int) -> tuple[np.ndarray, np.ndarray]:
            random = generator(self.seed, "fragments", epoch, self.source)
            order = random.permutation(len(self._sizes))
            return order, np.cumsum(self._sizes[order])

        return lru_cache(maxsize=2)(laid_out)

    @cached_property
    def _window(self) -> Callable[[int, int], np.ndarray]:
        """Of a window the places of its rows in the epoch's sequence, in training order."""

        def shuffled(epoch: int, window: int) -> np.ndarray:
            first, stop = self._bounds(window)
            random = generator(self.seed, "window", epoch, self.source, window)
            return first + random.permutation(stop - first)

        return lru_cache(maxsize=2)(shuffled)


def _check_rows(order: Steps) -> None:
    if order.rows < order.batch_size:
        raise DataError(
            f"{order.rows} training rows do not fill one global batch of {order.batch_size}; "
            "prepare more rows or set a smaller training.batch_size"
        )
