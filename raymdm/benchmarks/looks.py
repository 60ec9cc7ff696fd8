"""Simulated looks: how often adaptive seeds err under a true null, and how often they decide."""

from collections.abc import Iterator

import numpy as np
from scipy import stats

from raymdm.benchmarks.coverage import CASES, Case
from raymdm.verdict.outcomes import Outcomes
from raymdm.verdict.power import detectable_difference
from raymdm.verdict.sequential import SequentialDesign, holm_within_look, replay
from raymdm.verdict.spending import Spending
from raymdm.verdict.statistics import LEVEL, Scores

MOST, BATCH = 24, 3
"""Of the simulated designs: seeds per arm, and seeds between two looks."""
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
