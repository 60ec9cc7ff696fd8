"""Simulated coverage of every interval of a verdict, and the error and power of adaptive seeds.

No run is made: scores are drawn from known laws, so the truth is known. `--json` with
`raymdm/verdict/coverage.json` writes the table that verdicts quote.
"""

from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table
from scipy import stats

from raymdm.benchmarks.request import Report, Request
from raymdm.verdict.beside import INTERVALS
from raymdm.verdict.coverage import ENOUGH
from raymdm.verdict.item_noise import resampled_means, resampled_scores
from raymdm.verdict.outcomes import Outcomes
from raymdm.verdict.power import detectable_difference
from raymdm.verdict.sensitivity import LEAST_FOR_BCA, bca_stack
from raymdm.verdict.sequential import SequentialDesign, holm_within_look, replay
from raymdm.verdict.spending import Spending
from raymdm.verdict.statistics import LEVEL, Scores

REPEATS = 10_000
BOOTSTRAP_REPEATS = 1_000
"""A bootstrap is a thousand times the work of a formula."""
SEEDS = (3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 24)
DRAWS = 1_000
"""Bootstrap samples of each simulated interval."""
ITEMS = 100
ITEM_NOISE = 0.5
"""Noise of a run's score from its items, in the smaller standard deviation between seeds."""
SHIFT = 1.0
"""True difference, in root mean square standard deviations."""
MOST, BATCH = 24, 3
"""Of the simulated sequential designs: seeds per arm, and seeds between two looks."""
COMPARISONS = (1, 3, 7)
_CHUNK = 50


class Case(NamedTuple):
    """A law of the scores, and the second arm's standard deviation over the first's."""

    law: str
    ratio: int

    @property
    def name(self) -> str:
        """As in `coverage.json`."""
        return f"{self.law} 1:{self.ratio}"

    @property
    def shift(self) -> float:
        """True mean(first) - mean(second), in the first arm's standard deviations."""
        return SHIFT * sqrt((1 + self.ratio**2) / 2)

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> Scores:
        """Scores of mean 0 and variance 1."""
        if self.law == "normal":
            return random.standard_normal(shape)
        return random.standard_exponential(shape) - 1

    def arms(self, random: np.random.Generator, repeats: int, n: int) -> tuple[Scores, Scores]:
        """The scores of both arms, [repeats, n]."""
        return self.shift + self.draw(random, (repeats, n)), self.ratio * self.draw(
            random, (repeats, n)
        )


CASES = tuple(Case(law, ratio) for law in ("normal", "exponential") for ratio in (1, 3))


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


# Intervals: whether each of a stack of experiments covers the truth, all at once.


def covered(name: str, case: Case, n: int, repeats: int, bootstrap_repeats: int) -> float:
    """Share of simulated experiments whose interval holds the truth."""
    random = np.random.default_rng([CASES.index(case), n])
    if name not in ("bca", "crossed"):
        return float(np.mean(FORMULAS[name](*case.arms(random, repeats, n), case)))
    found: list[np.ndarray] = []
    for start in range(0, bootstrap_repeats, _CHUNK):
        chunk = min(_CHUNK, bootstrap_repeats - start)
        arms = case.arms(random, chunk, n)
        found.append(_bca(*arms, case) if name == "bca" else crossed_covers(*arms, case, random))
    return float(np.mean(np.concatenate(found)))


def _within(low: Any, truth: Any, high: Any) -> np.ndarray:
    return np.asarray((low <= truth) & (truth <= high))


def _t_interval(test: Any, truth: float) -> np.ndarray:
    bounds = test.confidence_interval(0.95)
    return _within(bounds.low, truth, bounds.high)


def _welch(first: Scores, second: Scores, case: Case) -> np.ndarray:
    return _t_interval(stats.ttest_ind(first, second, axis=1, equal_var=False), case.shift)


def _student(first: Scores, second: Scores, case: Case) -> np.ndarray:
    return _t_interval(stats.ttest_1samp(first, 0.0, axis=1), case.shift)


def _paired(first: Scores, second: Scores, case: Case) -> np.ndarray:
    return _t_interval(stats.ttest_rel(first, second, axis=1), case.shift)


def _variance_ratio(first: Scores, second: Scores, case: Case) -> np.ndarray:
    n = first.shape[1]
    ratios = first.var(axis=1, ddof=1) / second.var(axis=1, ddof=1)
    low, high = stats.f.ppf([0.025, 0.975], n - 1, n - 1)
    return _within(ratios / high, case.ratio**-2, ratios / low)


def _effect_size(first: Scores, second: Scores, case: Case) -> np.ndarray:
    n = first.shape[1]
    t = stats.ttest_ind(first, second, axis=1).statistic
    # An interval by inversion holds the truth where the truth does not reject what was seen.
    return _within(0.025, stats.nct.cdf(t, 2 * n - 2, SHIFT * sqrt(n / 2)), 0.975)


def _seeds_needed(first: Scores, second: Scores, case: Case) -> np.ndarray:
    n = first.shape[1]
    squares = (n - 1) * (first.var(axis=1, ddof=1) + second.var(axis=1, ddof=1))
    low, high = stats.chi2.ppf([0.025, 0.975], 2 * n - 2)
    return _within(squares / high, (1 + case.ratio**2) / 2, squares / low)


FORMULAS: dict[str, Callable[[Scores, Scores, Case], np.ndarray]] = {
    "welch": _welch,
    "student": _student,
    "paired": _paired,
    "variance_ratio": _variance_ratio,
    "effect_size": _effect_size,
    "seeds_needed": _seeds_needed,
}


def _bca(first: Scores, second: Scores, case: Case) -> np.ndarray:
    low, high = bca_stack(first, second, DRAWS)
    return _within(low, case.shift, high)


def crossed_covers(
    first: Scores, second: Scores, case: Case, random: np.random.Generator
) -> np.ndarray:
    """Whether the crossed intervals hold the truth, of runs with noise from their items.

    The draws of items are shared by the experiments of the stack, as they are by the arms of one.
    """
    scores = np.concatenate([first, second], axis=1)
    count, runs = scores.shape
    hardness = random.standard_normal((count, 1, ITEMS))
    noise = ITEM_NOISE * sqrt(ITEMS) * random.standard_normal((count, runs, ITEMS))
    values = (scores[:, :, None] + hardness + noise).reshape(count * runs, ITEMS)
    drawn = resampled_scores(values, np.ones(ITEMS), DRAWS, random).reshape(DRAWS, count, runs)
    found = []
    for index in range(count):
        sides = drawn[:, index, : first.shape[1]], drawn[:, index, first.shape[1] :]
        gaps = resampled_means(sides[0], random) - resampled_means(sides[1], random)
        low, high = np.quantile(gaps, [0.025, 0.975])
        found.append(low <= case.shift <= high)
    return np.array(found)


# Adaptive seeds.

MARGIN = detectable_difference(MOST)
"""In standard deviations: what all seeds would see with 80% power in a single look."""


def design(comparisons: int, spending: Spending = "obrien_fleming") -> SequentialDesign:
    """24 seeds, looked at after every three."""
    arms = ("base", *(f"arm{number}" for number in range(comparisons)))
    return SequentialDesign(arms, tuple(range(MOST)), BATCH, MARGIN, spending=spending)


def p_values(plan: SequentialDesign, case: Case, repeats: int) -> np.ndarray:
    """The p of every arm at every look of experiments under the null, [repeats, looks, arms].

    The arms have the second standard deviation of the case, the baseline the first.
    """
    return looks_at(plan, *null(plan, case, repeats))


def null(plan: SequentialDesign, case: Case, repeats: int) -> tuple[Scores, Scores]:
    """Scores of arms [repeats, k, seeds] that differ from the baseline's [repeats, 1, seeds] in
    their spread alone.
    """
    random = np.random.default_rng([CASES.index(case), len(plan.arms)])
    base = case.draw(random, (repeats, 1, MOST))
    return case.ratio * case.draw(random, (repeats, len(plan.arms) - 1, MOST)), base


def looks_at(plan: SequentialDesign, arms: Scores, base: Scores) -> np.ndarray:
    """The rule's p, [..., looks, k], of `arms[..., k, seeds]` and `base[..., 1, seeds]`.

    The degrees of freedom are Welch's at the last look, before it those of one arm.
    """
    found = []
    for n in plan.looks:
        test = stats.ttest_ind(arms[..., :n], base[..., :n], axis=-1, equal_var=False)
        cautious = 2 * stats.t.sf(np.abs(test.statistic), n - 1)
        found.append(test.pvalue if n == plan.looks[-1] else cautious)
    return np.stack(found, axis=-2)


def sequential_error(plan: SequentialDesign, case: Case, repeats: int) -> float:
    """Share of experiments under the null in which any arm is called better or worse at any look.

    No arm is stopped for equivalence or futility before: that could only make it smaller.
    """
    return float(np.mean([any_rejected(plan, looks) for looks in p_values(plan, case, repeats)]))


def any_rejected(plan: SequentialDesign, looks: np.ndarray) -> bool:
    """Whether the rule rejects anything, given the p values [looks, arms] of one experiment."""
    for number, values in enumerate(looks):
        named = dict(zip(plan.arms[1:], values.tolist(), strict=True))
        rejected: set[str] = set()
        holm_within_look(named, len(named), rejected, plan, number)
        if rejected:
            return True
    return False


def naive_error(plan: SequentialDesign, case: Case, repeats: int) -> float:
    """The same for one arm if Welch's p were held to 0.05 at every look."""
    arms, base = null(plan, case, repeats)
    found: np.ndarray = np.zeros(repeats, bool)
    for n in plan.looks:
        test = stats.ttest_ind(arms[:, 0, :n], base[:, 0, :n], axis=-1, equal_var=False)
        found |= test.pvalue < LEVEL
    return float(found.mean())


def sequential_words(plan: SequentialDesign, shift: float, repeats: int) -> dict[str, float]:
    """How often each word ends a design of one arm with this true difference, and after how many
    seeds per arm on average; normal scores with standard deviation 1.
    """
    random = np.random.default_rng(1)
    words = dict.fromkeys(("better", "worse", "equivalent", "futile", "seeds"), 0.0)
    for _ in range(repeats):
        scores = random.standard_normal((2, MOST)) + np.array([[0.0], [shift]])
        row = replay(plan, list(stages(plan, scores))).arms[0]
        words[row.word] += 1 / repeats
        words["seeds"] += row.n / repeats
    return {word: round(share, 4) for word, share in words.items()}


def stages(plan: SequentialDesign, scores: np.ndarray) -> Iterator[list[Outcomes]]:
    """The runs at every look, of `scores[arms, seeds]`."""
    for n in plan.looks:
        yield [Outcomes(row[:n], plan.seeds[:n], 0, 0) for row in scores]


# Tables.


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
