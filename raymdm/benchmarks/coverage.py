"""Simulated coverage: whether the intervals of a stack of experiments hold the known truth."""

from collections.abc import Callable
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from raymdm.verdict.item_noise import resampled_means, resampled_scores
from raymdm.verdict.sensitivity import bca_stack
from raymdm.verdict.statistics import Scores

DRAWS = 1_000
"""Bootstrap samples of each simulated interval."""
ITEMS = 100
ITEM_NOISE = 0.5
"""Noise of a run's score from its items, in the smaller standard deviation between seeds."""
SHIFT = 1.0
"""True difference, in root mean square standard deviations."""
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
