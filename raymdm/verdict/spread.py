"""Do the seeds of an arm spread less than the baseline's? A word and a sentence for each arm.

It stands beside the verdict on means and does not touch it. The word is from Brown and Forsythe's
test (1974, Journal of the American Statistical Association 69: deviations from the medians), by
Holm over the arms; never from the F interval, which trusts normal scores far more than a comparison
of means does.
"""

from dataclasses import dataclass, replace
from math import isfinite, isnan, nan
from typing import Literal

import numpy as np

from raymdm.verdict import statistics
from raymdm.verdict.decision import ArmVerdict, Verdict
from raymdm.verdict.spread_power import detectable_sd_ratio
from raymdm.verdict.statistics import LEVEL
from raymdm.verdict.wording import decimals, number, p_value, ratio, ratio_interval

SpreadWord = Literal["spreads less", "spreads more", "undecided"]

SPREAD_CAPTION = (
    "Decided at 0.05 by Brown and Forsythe's test of equal variances, adjusted by Holm over the "
    "arms; it stands beside the verdicts on means and leaves them alone. What so many seeds could "
    "have seen is simulated for this test: normal scores, 80% power, the hardest step of Holm. At "
    "four seeds a side the test errs more often than it should (6.6% of equal normal spreads, 9.8% "
    "of equal exponential ones)."
)


@dataclass(frozen=True)
class Spread:
    """One arm's spread between seeds against the baseline's; NaN where it is not defined."""

    arm: str
    word: SpreadWord
    sd_ratio: float
    """Standard deviation of the arm over the baseline's, of the finished runs."""
    p_holm: float
    """Of Brown and Forsythe's test, over the arms."""
    detectable: float
    """Smallest true ratio of sds, or its inverse, that the test sees with 80% power
    (`spread_power.py`); infinite where it sees none."""
    sentence: str = ""


def spreads(verdict: Verdict) -> list[Spread]:
    """For every arm beside the baseline, in the order of the arms."""
    base, *others = verdict.arms
    adjusted = statistics.holm([_brown_forsythe(row) for row in others])
    return [_spread(verdict, row, base, p) for row, p in zip(others, adjusted, strict=True)]


def _spread(verdict: Verdict, row: ArmVerdict, base: ArmVerdict, p_holm: float) -> Spread:
    found = Spread(
        arm=row.arm,
        word=_decide(row, base, p_holm),
        sd_ratio=row.sd / base.sd if base.sd > 0 else nan,
        p_holm=p_holm,
        detectable=detectable_sd_ratio(row.n_finished, base.n_finished, verdict.comparisons),
    )
    return replace(found, sentence=_sentence(verdict, row, base, found))


def _decide(row: ArmVerdict, base: ArmVerdict, p_holm: float) -> SpreadWord:
    if not p_holm < LEVEL:
        return "undecided"
    # The test compares these, so they say which side is the smaller.
    less = _deviation(row) < _deviation(base)
    # Survivors flatter an arm that diverged: it is not the steadier one by them.
    if (row if less else base).n_diverged:
        return "undecided"
    return "spreads less" if less else "spreads more"


def _sentence(verdict: Verdict, row: ArmVerdict, base: ArmVerdict, found: Spread) -> str:
    counts = f"{row.n_finished} against {base.n_finished} seeds"
    who = f"the spread of {row.arm} against {base.arm} on {verdict.metric}: undecided"
    if isnan(found.detectable):
        return f"{who}, {counts}; it takes at least three on each side"
    if not (isfinite(found.sd_ratio) and isfinite(found.p_holm)):
        return f"{who}, the scores do not vary between the seeds"
    places = decimals(verdict)
    looked = ", not adjusted for the looks" if row.look is not None else ""
    text = (
        f"the seeds of {row.arm} spread {ratio(found.sd_ratio)} times as much as those of "
        f"{base.arm} on {verdict.metric} (sd {number(row.sd, places)} against "
        f"{number(base.sd, places)}; ratio of variances {ratio(row.variance_ratio)}, 95% F "
        f"interval {ratio_interval(row.variance_ratio_interval)}, Brown-Forsythe p "
        f"{p_value(_brown_forsythe(row))}, Holm {p_value(found.p_holm)}{looked}): {found.word}"
    )
    if found.word == "undecided":
        over = f" and Holm over {verdict.comparisons} arms" if verdict.comparisons > 1 else ""
        seen = ratio(found.detectable)
        text += f"; {counts}{over} could " + (
            f"have seen only ratios of sds above {seen} or below 1/{seen}"
            if isfinite(found.detectable)
            else "not have seen any ratio of sds with 80% power"
        )
    diverged = [
        f"{side.arm} diverged {side.n_diverged}/{side.n}" for side in (row, base) if side.n_diverged
    ]
    return "; ".join([text, *diverged])


def _brown_forsythe(row: ArmVerdict) -> float:
    return nan if row.beside is None else row.beside.p_brown_forsythe


def _deviation(row: ArmVerdict) -> float:
    """Mean absolute deviation from the median."""
    scores = np.array(row.scores)
    return float(np.abs(scores - np.median(scores)).mean())
