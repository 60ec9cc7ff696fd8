"""Figures over the items of one evaluation, each with its uncertainty.

The replicate is the item: what is stated is how far a figure would move with other items of the
same kind, for this one model. How far it moves with another seed is the business of `statistics`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from raymdm.verdict.statistics import UNDEFINED, Interval

RATES = ("right_at_end", "right_at_some_step", "over_denoised", "first_right_step")
"""The figures of `StepRates`."""


class Estimate(NamedTuple):
    """A figure and its standard error over the items; NaN where the items do not define it."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class StepRates:
    """How the answers of a set of items came about, step by step."""

    items: int
    right_at_end: Estimate
    right_at_some_step: Estimate
    over_denoised: Estimate
    """Right at some step, wrong at the end: the first of these shares against the second."""
    first_right_step: Estimate
    """Mean over the items that were right at some step; steps count from 1."""

    def as_json(self) -> dict[str, Any]:
        """`{"items": n, "right_at_end": {"value": …, "standard_error": …}, …}`."""
        figures = {name: getattr(self, name) for name in RATES}
        return {"items": self.items, **{name: each._asdict() for name, each in figures.items()}}


def share(yes: Sequence[float]) -> Estimate:
    """The mean of `yes[n]`, each 0 or 1, with its binomial standard error sqrt(p (1 - p) / n)."""
    if not len(yes):
        return Estimate(nan, nan)
    value = float(np.mean(np.asarray(yes, dtype=float)))
    return Estimate(value, sqrt(max(0.0, value * (1 - value)) / len(yes)))


def wilson(yes: Sequence[float]) -> Interval:
    """Wilson's 95% interval of a share; unlike ± 1.96 standard errors it has a width at 0 and 1."""
    if not len(yes):
        return UNDEFINED
    hits = int(np.sum(np.asarray(yes, dtype=float) > 0.5))
    bounds = stats.binomtest(hits, len(yes)).proportion_ci(method="wilson")
    return float(bounds.low), float(bounds.high)


def ratio_of_sums(numerator: Sequence[float], denominator: Sequence[float]) -> Estimate:
    """sum(a) / sum(b) over the items, as precision, recall, F1 and nats per token are.

    The standard error is that of the linearised ratio R (Cochran, Sampling Techniques, chapter 6):
    sqrt(n / (n - 1) * sum (a_i - R b_i)^2) / sum(b). An item may have no denominator of its own.
    NaN where sum(b) is 0; the error is NaN below two items.

    Args:
        numerator: a[n].
        denominator: b[n], none negative.
    """
    above, below = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    total = float(below.sum())
    if not total:
        return Estimate(nan, nan)
    ratio = float(above.sum()) / total
    count = len(above)
    if count < 2:
        return Estimate(ratio, nan)
    squares = float(((above - ratio * below) ** 2).sum())
    return Estimate(ratio, sqrt(count / (count - 1) * squares) / total)


def over_denoised(correct: Sequence[bool]) -> bool:
    """Whether a response was right at some step and wrong at the end (MDPO's answer backslide)."""
    return any(correct) and not correct[-1]


def first_right_step(correct: Sequence[bool]) -> int | None:
    """The first step, from 1, whose full prediction is right; None where none is."""
    return next((step for step, right in enumerate(correct, start=1) if right), None)


def step_columns(correct: Sequence[bool]) -> Mapping[str, bool | int | None]:
    """What the table of items says of the steps of one item: `step_rates` reads these columns."""
    return {
        "right_at_some_step": any(correct),
        "over_denoised": over_denoised(correct),
        "first_right_step": first_right_step(correct),
    }


def step_rates(items: pd.DataFrame) -> StepRates | None:
    """Rates over the items whose steps were scored, from the columns `step_columns` and `correct`.

    None where there are no such columns, or no item has them.
    """
    if "right_at_some_step" not in items:
        return None
    traced = items[items["right_at_some_step"].notna()]
    if not len(traced):
        return None
    some = traced["right_at_some_step"].astype(bool)
    over = traced["over_denoised"].astype(bool)
    first = traced["first_right_step"].dropna().to_numpy(dtype=float)
    spread = float(np.std(first, ddof=1)) / sqrt(len(first)) if len(first) > 1 else nan
    return StepRates(
        items=len(traced),
        # Of the trace itself: the end of the trace is what the response was read from.
        right_at_end=share((some & ~over).to_numpy()),
        right_at_some_step=share(some.to_numpy()),
        over_denoised=share(over.to_numpy()),
        first_right_step=Estimate(float(first.mean()) if len(first) else nan, spread),
    )
