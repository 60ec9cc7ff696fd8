"""Sides timed in turn, so that a machine that slows down or is shared slows all of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from raymdm.benchmarks.device import wait_for_device
from raymdm.errors import RunError

TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}
"""What sides must agree to before they are compared: relative, by precision."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of neighbouring blocks: its median and quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(over: np.ndarray, under: np.ndarray) -> Ratio:
    """Over / under, block by block."""
    low, median, high = np.quantile(over / under, [0.25, 0.5, 0.75])
    return Ratio(float(median), float(low), float(high))


def alternate(
    sides: Sequence[Callable[[], float]], *, blocks: int, steps: int, warm_up: int
) -> tuple[np.ndarray, np.ndarray]:
    """losses[sides, warm_up + blocks · steps] and seconds[sides, blocks].

    Args:
        sides: each call is one step of that side and gives its loss.
        blocks: timed, of each side. The side that begins changes from block to block.
        steps: of one block.
        warm_up: steps of each side beforehand.
    """
    losses: list[list[float]] = [[step() for _ in range(warm_up)] for step in sides]
    seconds = np.empty((len(sides), blocks))
    for block in range(blocks):
        for turn in range(len(sides)):
            side = (block + turn) % len(sides)
            wait_for_device()
            started = time.perf_counter()
            losses[side] += [sides[side]() for _ in range(steps)]
            wait_for_device()
            seconds[side, block] = time.perf_counter() - started
    return np.array(losses), seconds


def check_same_work(difference: float, tolerance: float, what: str, hint: str = "") -> None:
    """Refuse to compare the speed of things that differ.

    Args:
        difference: relative, the largest found.
        tolerance: the largest allowed.
        what: of which things, for the message.
        hint: why that may be, for the message.

    Raises:
        RunError: the difference is larger, or not a number.
    """
    if not difference <= tolerance:
        raise RunError(
            f"{what} differ by up to {difference:.1e} (relative; allowed {tolerance:.0e}), so they "
            f"do not do the same work and no ratio is given{hint and f'; {hint}'}"
        )
