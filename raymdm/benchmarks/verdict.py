"""Simulated coverage of every interval of a verdict, and the error and power of adaptive seeds.

No run is made: scores are drawn from known laws, so the truth is known. `--json` with
`raymdm/verdict/coverage.json` writes the table that verdicts quote.
"""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from raymdm.benchmarks.coverage import CASES, covered
from raymdm.benchmarks.looks import (
    BATCH,
    MARGIN,
    MOST,
    design,
    naive_error,
    sequential_error,
    sequential_words,
)
from raymdm.benchmarks.request import Report, Request
from raymdm.verdict.beside import INTERVALS
from raymdm.verdict.coverage import ENOUGH
from raymdm.verdict.sensitivity import LEAST_FOR_BCA

REPEATS = 10_000
BOOTSTRAP_REPEATS = 1_000
"""A bootstrap is a thousand times the work of a formula."""
SEEDS = (3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 24)
COMPARISONS = (1, 3, 7)


def bench(request: Request) -> Report:
    """All figures; some minutes."""
    figures = measure_verdict()
    return Report(tables(figures), figures)


def measure_verdict(
    repeats: int = REPEATS,
    bootstrap_repeats: int = BOOTSTRAP_REPEATS,
    seeds: Sequence[int] = SEEDS,
) -> dict[str, Any]:
    """Coverage by interval, case and number of seeds; error and power of the sequential rule.

    Args:
        repeats: simulated experiments of each case.
        bootstrap_repeats: the same for the two bootstraps, and for the power of the looks.
        seeds: numbers of seeds per arm.
    """
    return {
        "repeats": repeats,
        "bootstrap_repeats": bootstrap_repeats,
        "coverage": {
            name: {
                case.name: {
                    str(n): round(covered(name, case, n, repeats, bootstrap_repeats), 4)
                    for n in seeds
                    if name != "bca" or n >= LEAST_FOR_BCA
                }
                for case in CASES
            }
            for name in INTERVALS
        },
        "sequential_error": {
            spending: {
                case.name: {
                    str(comparisons): round(
                        sequential_error(design(comparisons, spending), case, repeats), 4
                    )
                    for comparisons in COMPARISONS
                }
                for case in CASES
            }
            for spending in ("obrien_fleming", "pocock")
        },
        "repeated_looks_without_spending": {
            case.name: round(naive_error(design(1), case, repeats), 4) for case in CASES
        },
        "sequential_power": {
            spending: {
                truth: sequential_words(design(1, spending), shift, bootstrap_repeats)
                for truth, shift in (("no difference", 0.0), ("the margin", MARGIN))
            }
            for spending in ("obrien_fleming", "pocock")
        },
    }


def tables(figures: dict[str, Any]) -> list[Table]:
    """One of coverage for each case, and two of the looks."""
    found = []
    for case in CASES:
        numbers = list(figures["coverage"]["welch"][case.name])
        few = figures["bootstrap_repeats"]
        made = Table(
            title=f"coverage of 95% intervals, {case.law} scores, sd 1:{case.ratio}",
            caption=f"{figures['repeats']} experiments each (bca, crossed: {few}); "
            f"descriptive below {ENOUGH:.0%} in any case",
        )
        made.add_column("interval \\ seeds")
        for n in numbers:
            made.add_column(n, justify="right")
        for name, cases in figures["coverage"].items():
            shares = [cases[case.name].get(n) for n in numbers]
            made.add_row(name, *("–" if s is None else f"{100 * s:.1f}" for s in shares))
        found.append(made)
    return [*found, _error_table(figures), _power_table(figures)]


def _error_table(figures: dict[str, Any]) -> Table:
    made = Table(
        title=f"sequential rule under a true null: {MOST} seeds, a look after every {BATCH}",
        caption="% of experiments with any arm called better or worse",
    )
    made.add_column("spending")
    made.add_column("arms beside the baseline")
    for case in CASES:
        made.add_column(case.name, justify="right")
    for spending, cases in figures["sequential_error"].items():
        for comparisons in map(str, COMPARISONS):
            shares = [f"{100 * cases[case.name][comparisons]:.1f}" for case in CASES]
            made.add_row(spending, comparisons, *shares)
    naive = figures["repeated_looks_without_spending"]
    made.add_row("none (p < 0.05)", "1", *(f"{100 * naive[case.name]:.1f}" for case in CASES))
    return made


def _power_table(figures: dict[str, Any]) -> Table:
    made = Table(
        title=f"sequential rule with one arm, margin {MARGIN:.2f} sd (80% power with all seeds)",
        caption=f"% of {figures['bootstrap_repeats']} experiments; mean seeds per arm at the end",
    )
    for heading in ("spending", "truth", "better", "worse", "equivalent", "futile", "seeds"):
        made.add_column(heading)
    for spending, truths in figures["sequential_power"].items():
        for truth, words in truths.items():
            *shares, seeds = words.values()
            shown = [f"{100 * share:.1f}" for share in shares]
            made.add_row(spending, truth, *shown, f"{seeds:.1f}")
    return made
