"""How often each interval covers the truth with so few seeds, by simulation.

`coverage.json` is what this command wrote, whole and unedited:

    raymdm bench verdict --json raymdm/verdict/coverage.json
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("coverage.json")
ENOUGH = 0.92
"""An interval that covers less, in any of the simulated cases, only describes."""


@dataclass(frozen=True)
class Coverage:
    """Simulated coverage of a 95% interval."""

    seeds: int
    """Seeds per arm in the simulation: the nearest number not above the runs'."""
    normal: float
    """The lower of two: normal scores with standard deviations 1:1 and 1:3."""
    skewed: float
    """The same for exponential scores, about as skewed as scores get."""
    descriptive: bool
    """Whether either is below 92%."""


def coverage(interval: str, seeds: int) -> Coverage | None:
    """What was simulated of an interval with so many seeds per arm; None for too few.

    Args:
        interval: `welch`, `student`, `paired`, `bca`, `crossed`, `variance_ratio`, `effect_size`
            or `seeds_needed`.
        seeds: the smaller number of the two arms.
    """
    cases = _table()["coverage"][interval]
    known = [int(n) for n in cases["normal 1:1"] if int(n) <= seeds]
    if not known:
        return None
    nearest = max(known)
    normal, skewed = (
        min(cases[f"{law} {ratio}"][str(nearest)] for ratio in ("1:1", "1:3"))
        for law in ("normal", "exponential")
    )
    return Coverage(nearest, normal, skewed, min(normal, skewed) < ENOUGH)


@cache
def _table() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content
