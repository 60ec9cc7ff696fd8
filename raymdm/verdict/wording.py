"""Verdicts in plain words, and numbers with as many digits as the seeds support."""

from math import floor, isfinite, log10

from raymdm.verdict.decision import ArmVerdict, Verdict
from raymdm.verdict.power import MOST_SEEDS
from raymdm.verdict.statistics import Interval

NOTHING = "–"


def decimals(verdict: Verdict) -> int:
    """Decimal places that show the smallest spread among the arms with two digits (2 to 6)."""
    spreads = [row.sd for row in verdict.arms if row.sd > 0]
    return min(6, max(2, 1 - floor(log10(min(spreads))))) if spreads else 4


def number(value: float, places: int, sign: bool = False) -> str:
    """`value` with fixed places; a dash where it is undefined."""
    if not isfinite(value):
        return NOTHING
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return f"{round(value, places) + 0.0:{'+' if sign else ''}.{places}f}"


def interval(bounds: Interval, places: int) -> str:
    """`[low, high]`; a dash where it is undefined."""
    if not all(map(isfinite, bounds)):
        return NOTHING
    return f"[{number(bounds[0], places)}, {number(bounds[1], places)}]"


def ratio(value: float) -> str:
    """A variance ratio with two significant digits."""
    return NOTHING if not isfinite(value) else f"{value:.2g}" if value < 100 else f"{value:.0f}"


def ratio_interval(bounds: Interval) -> str:
    """`[low, high]` of a variance ratio; a dash where it is undefined."""
    low, high = map(ratio, bounds)
    return NOTHING if NOTHING in (low, high) else f"[{low}, {high}]"


def p_value(p: float) -> str:
    """`0.034`, `< 0.001`, or a dash."""
    if not isfinite(p):
        return NOTHING
    # Close to the level a third digit would hide the side it lies on.
    places = 4 if 0.045 < p < 0.055 else 3
    return "< 0.001" if p < 0.001 else f"{p:.{places}f}"


def sentences(verdict: Verdict) -> list[str]:
    """One or two sentences for each arm, in the order of the arms."""
    if not verdict.comparisons:
        return [f"{verdict.baseline} is the only arm: nothing to compare on {verdict.metric}"]
    return [sentence(verdict, row) for row in verdict.arms[1:]]


def sentence(verdict: Verdict, row: ArmVerdict) -> str:
    """The verdict on one arm, with what it rests on and what it would take to know more."""
    base = verdict[verdict.baseline]
    text = {
        "better": _decided,
        "worse": _decided,
        "equivalent": _equivalent,
        "undecided": _undecided,
    }[row.verdict](verdict, row, base)
    diverged = [
        f"{side.arm} diverged {side.n_diverged}/{side.n}" for side in (row, base) if side.n_diverged
    ]
    return "; ".join([text, *_looks(verdict, row), *diverged])


def _looks(verdict: Verdict, row: ArmVerdict) -> list[str]:
    """Where seeds were added until it was decided: the look that the verdict is from."""
    look = row.look
    if look is None:
        return []
    if not look.look:
        return ["no look yet: the seeds of the first are not complete"]
    words = {"better": "decided", "worse": "decided", "continue": "still open"}
    text = (
        f"{words.get(look.word, look.word)} at look {look.look} of {verdict.looks} with {look.n} "
        f"seeds per arm ({look.reason}"
    )
    return [
        f"{text}; p {look.p:.2g}, boundary {look.boundary:.2g})" if isfinite(look.p) else f"{text})"
    ]


def normality(row: ArmVerdict, base: ArmVerdict) -> str:
    """Why a verdict rests on normality."""
    return (
        f"rests on normality: with {row.n} against {base.n} seeds no permutation test can go "
        f"below p = {row.p_floor:.{2 if row.p_floor >= 0.01 else 4}f}"
    )


def _decided(verdict: Verdict, row: ArmVerdict, base: ArmVerdict) -> str:
    places = decimals(verdict)
    low, high = sorted(abs(bound) for bound in row.interval)
    inside = (
        f"; the 90% interval lies within the margin ±{verdict.margin:g}"
        if verdict.margin is not None and max(map(abs, row.interval_90)) < verdict.margin
        else ""
    )
    return (
        f"{row.arm} is {row.verdict} than {verdict.baseline} on {verdict.metric} by "
        f"{number(abs(row.difference), places)} {interval((low, high), places)} "
        f"(Welch 95% interval, {_holm(row)}, {row.n_finished} against "
        f"{base.n_finished} seeds{inside})"
        + (f"; {normality(row, base)}" if row.rests_on_normality else "")
    )


def _equivalent(verdict: Verdict, row: ArmVerdict, base: ArmVerdict) -> str:
    bounds = interval(row.interval_90, decimals(verdict))
    return (
        f"{row.arm} is equivalent to {verdict.baseline} on {verdict.metric}: the 90% interval of "
        f"the difference {bounds} lies within ±{verdict.margin:g} ({row.n_finished} against "
        f"{base.n_finished} seeds)"
    )


def _undecided(verdict: Verdict, row: ArmVerdict, base: ArmVerdict) -> str:
    places = decimals(verdict)
    text = f"undecided: {row.arm} against {verdict.baseline} on {verdict.metric}"
    if not isfinite(row.difference):
        return f"{text}, there are no finished runs of {row.arm if base.n_finished else base.arm}"
    text += f", difference {number(row.difference, places, sign=True)}"
    if min(row.n_finished, base.n_finished) < 2:
        return f"{text} from a single seed on one side; a verdict needs at least two on each"
    if not isfinite(row.p_welch):
        return f"{text}, but the scores do not vary between seeds, so there is no noise to judge by"
    text += f" {interval(row.interval, places)} ({_holm(row)})"
    if row.p_holm < 0.05 and row.look is None:
        winner = row.arm if (row.difference > 0) == verdict.higher_is_better else base.arm
        return f"{text}; {winner} leads among finished runs, but it diverged, so it does not win"
    if row.seeds_needed is not None:
        what = "the margin" if verdict.margin is not None else "twice the baseline's standard error"
        text += (
            f"; about {seeds(row.seeds_needed)} seeds per arm would be needed to see a difference "
            f"of {row.seeds_needed_for:.2g} ({what})"
        )
    return text


def seeds(needed: tuple[int, int]) -> str:
    """`12–40`, or one number where both ends agree."""
    low, high = needed
    shown = f"{high}+" if high >= MOST_SEEDS else str(high)
    return shown if low == high else f"{low}–{shown}"


def _holm(row: ArmVerdict) -> str:
    looked = " before the looks" if row.look is not None else ""
    return f"Holm {_equals(row.p_holm)}{looked}"


def _equals(p: float) -> str:
    return f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"
