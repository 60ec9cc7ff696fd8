"""What stands beside the verdicts, as table cells and lines: described, never deciding."""

from math import isfinite

from raymdm.verdict.beside import Beside
from raymdm.verdict.cells import Cell
from raymdm.verdict.decision import ArmVerdict, Verdict
from raymdm.verdict.wording import NOTHING, decimals, interval, number, p_value, ratio

DETAIL_HEADINGS = (
    ("beside it", ""),
    ("paired", "p, sign flips, r"),
    ("bootstrap BCa", "over seeds"),
    ("bootstrap", "seeds × items"),
    ("Hedges g", "95% interval"),
    ("next run better", "pairs won"),
    ("equal variances", "item noise"),
)
"""The same for what stands beside the verdicts and does not decide."""


def detail_cells(verdict: Verdict, row: ArmVerdict) -> list[Cell]:
    """What stands beside one arm's verdict, in the order of `DETAIL_HEADINGS`."""
    places = decimals(verdict)
    noise = ""
    if row.items:
        noise = f"{number(row.item_noise, places)} of sd {number(row.sd, places)}"
    extra = row.beside
    if extra is None:
        return [Cell(row.arm), *[Cell("")] * 5, Cell("", noise)]
    r = NOTHING if not isfinite(extra.correlation) else f"{extra.correlation:.2f}"
    effect = [bound for bound in extra.effect_size_interval if isfinite(bound)]
    return [
        Cell(row.arm),
        Cell(
            interval(extra.paired_interval, places),
            f"{p_value(extra.p_paired)}, {p_value(extra.p_sign_flip)}, {r}"
            if extra.pairs >= 2
            else "",
        ),
        Cell(interval(extra.bca_interval, places)),
        Cell(interval(extra.crossed_interval, places)),
        Cell(
            number(extra.effect_size, 1, sign=True),
            interval(extra.effect_size_interval, 1) if effect else "",
        ),
        Cell(percent(extra.next_run_better), percent(extra.wins)),
        Cell(
            f"p {p_value(extra.p_brown_forsythe)}",
            noise,
        ),
    ]


def percent(share: float) -> str:
    """`83%`; a dash where it is undefined."""
    return f"{share:.0%}" if isfinite(share) else NOTHING


_INTERVALS = {
    "welch": "Welch (the one that decides)",
    "student": "of a mean",
    "paired": "paired t",
    "bca": "BCa",
    "crossed": "seeds × items",
    "variance_ratio": "variance ratio",
    "effect_size": "Hedges g",
    "seeds_needed": "seeds needed",
}


def variances_seen(verdict: Verdict) -> list[str]:
    """What so many seeds could have seen of variances: a line for each pair of numbers of seeds."""
    return [_variances(*sizes, extra) for sizes, extra in _by_seeds(verdict)]


def coverage_lines(verdict: Verdict) -> list[str]:
    """How often the intervals cover with so few seeds, a line for each pair of numbers of seeds."""
    return list(dict.fromkeys(_coverage(extra) for _, extra in _by_seeds(verdict)))


def _by_seeds(verdict: Verdict) -> list[tuple[tuple[int, int], Beside]]:
    base = verdict.arms[0].n_finished
    found = {
        (row.n_finished, base): row.beside
        for row in reversed(verdict.arms)
        if row.beside is not None and min(row.n_finished, base) > 1
    }
    return sorted(found.items(), key=lambda pair: pair[0], reverse=True)


def _variances(first: int, second: int, extra: Beside) -> str:
    low, high = map(ratio, extra.variance_ratio_bounds)
    seen = ratio(extra.sd_ratio_detectable)
    return (
        f"{first} against {second} seeds: variance ratios from {low} to {high} may be chance; true "
        f"ratios of sds above {seen} or below 1/{seen} are seen by the F test with 80% "
        "power"
    )


def _coverage(extra: Beside) -> str:
    shown = {
        "paired": isfinite(extra.paired_interval[0]),
        "bca": isfinite(extra.bca_interval[0]),
        "crossed": isfinite(extra.crossed_interval[0]),
    }
    parts = []
    for name, label in _INTERVALS.items():
        found = extra.coverage.get(name)
        if not shown.get(name, True):
            continue
        if found is None:
            parts.append(f"{label} not simulated (descriptive)")
            continue
        word = " (descriptive)" if found.descriptive and name != "welch" else ""
        parts.append(f"{label} {100 * found.normal:.1f} / {100 * found.skewed:.1f}{word}")
    known = extra.coverage.get("welch")
    seeds = f"{known.seeds} seeds" if known is not None else "so few seeds"
    return (
        f"simulated coverage of the 95% intervals at {seeds}, normal / exponential scores, %: "
        + ", ".join(parts)
    )
