"""The statistics against definitions written independently, and against simulation."""

from itertools import combinations
from math import inf, isnan, sqrt

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower

from raymdm.verdict import power, statistics

SEED = 20240607


def brute_force_permutation(first, second):
    """Slow and plain: every split, numpy's own variances, no shared sums."""

    def absolute_t(x, y):
        gap = abs(np.mean(x) - np.mean(y))
        error = sqrt(np.var(x, ddof=1) / len(x) + np.var(y, ddof=1) / len(y))
        return gap / error if error else (inf if gap else 0.0)

    pooled = [*first, *second]
    observed = absolute_t(first, second)
    found = []
    for chosen in combinations(range(len(pooled)), len(first)):
        x = [pooled[i] for i in chosen]
        y = [pooled[i] for i in range(len(pooled)) if i not in chosen]
        found.append(absolute_t(x, y) >= observed * (1 - 1e-9))
    return np.mean(found)


@pytest.mark.parametrize(("n", "m"), [(3, 3), (2, 5), (5, 3), (4, 6)])
def test_the_exact_permutation_p_is_the_share_of_splits_as_extreme(n, m):
    random = np.random.default_rng(SEED)
    first, second = random.normal(0.6, 0.02, n), random.normal(0.58, 0.05, m)
    p = statistics.permutation(first, second)
    assert p == pytest.approx(brute_force_permutation(first, second))
    assert p >= statistics.permutation_floor(n, m)


def test_tied_scores_are_permuted_exactly():
    first, second = np.array([1.0, 1.0, 2.0, 2.0]), np.array([1.0, 1.0, 1.0, 3.0])
    expected = brute_force_permutation(first, second)
    assert statistics.permutation(first, second) == pytest.approx(expected)


def test_the_permutation_p_does_not_depend_on_the_unit_of_the_score():
    random = np.random.default_rng(SEED)
    first, second = random.normal(size=5), random.normal(size=4)
    p = statistics.permutation(first, second)
    assert statistics.permutation(1e-6 * first + 1, 1e-6 * second + 1) == p


@pytest.mark.parametrize(("n", "m", "floor"), [(3, 3, 2 / 20), (5, 5, 2 / 252), (3, 4, 1 / 35)])
def test_perfect_separation_reaches_the_floor(n, m, floor):
    first = np.arange(n) / n
    # Far apart in place and alike in spread: no other split is as extreme.
    second = 100 + np.arange(m) / m
    assert statistics.permutation_floor(n, m) == pytest.approx(floor)
    assert statistics.permutation(first, second) == pytest.approx(floor)


def test_larger_designs_are_sampled_reproducibly_and_close_to_welch():
    random = np.random.default_rng(SEED)
    first, second = random.normal(0.5, 1, 15), random.normal(0, 1, 15)
    p = statistics.permutation(first, second)
    assert p == statistics.permutation(first, second)
    assert p == pytest.approx(statistics.welch(first, second).p, abs=0.02)
    assert statistics.permutation(first + 1e3, second) == 1 / (1 + statistics.EXACT_SPLITS)


def test_holm_multiplies_the_smallest_by_all_the_next_by_one_less():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_a_comparison_that_was_lost_still_counts_in_holm():
    adjusted = statistics.holm([0.01, float("nan"), 0.03])
    assert adjusted[0] == pytest.approx(0.03)
    assert isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.06)


def share_covered(covers, repetitions):
    random = np.random.default_rng(SEED)
    return np.mean([covers(random) for _ in range(repetitions)])


def test_welchs_interval_covers_the_true_difference_in_95_percent_of_experiments():
    def covers(random):
        first, second = random.normal(1.0, 0.5, 5), random.normal(0.0, 2.0, 8)
        low, high = statistics.welch(first, second).interval
        return low <= 1.0 <= high

    # 600 experiments: a standard error of 0.009.
    assert share_covered(covers, 600) == pytest.approx(0.95, abs=0.027)


def test_the_f_interval_covers_the_true_variance_ratio_in_95_percent_of_experiments():
    def covers(random):
        first, second = random.normal(0, 2.0, 4), random.normal(0, 1.0, 7)
        low, high = statistics.variance_ratio(first, second)[1]
        return low <= 4.0 <= high

    assert share_covered(covers, 600) == pytest.approx(0.95, abs=0.027)


def test_equal_arms_are_called_different_in_about_5_percent_of_experiments():
    def rejects(random):
        return statistics.welch(random.normal(size=5), random.normal(size=5)).p < 0.05

    assert share_covered(rejects, 600) == pytest.approx(0.05, abs=0.027)


def test_the_variance_ratio_is_first_over_second():
    ratio, (low, high) = statistics.variance_ratio(np.array([0.0, 2, 4]), np.array([0.0, 1, 2]))
    assert ratio == pytest.approx(4.0)
    # F(2, 2) has the 97.5% quantile 39.
    assert (low, high) == pytest.approx((4 / 39, 4 * 39))


def test_the_seeds_needed_bracket_those_of_the_measured_spread():
    first, second = np.array([1.0, 2, 3, 4]), np.array([2.0, 3, 4, 5])
    low, high = power.seeds_needed(first, second, difference=1.5)
    pooled = np.std(first, ddof=1)
    at_measured = TTestIndPower().solve_power(1.5 / pooled, power=0.8, alpha=0.05)
    assert low < at_measured < high
    quantiles = stats.chi2.ppf([0.975, 0.025], 6)
    for needed, quantile in zip((low, high), quantiles, strict=True):
        effect = 1.5 / (pooled * sqrt(6 / quantile))
        exact = TTestIndPower().solve_power(effect, power=0.8, alpha=0.05)
        assert needed == int(np.ceil(exact))


def test_more_comparisons_need_more_seeds():
    scores = np.array([1.0, 2, 3, 4])
    one = power.seeds_needed(scores, scores, 1.0)
    many = power.seeds_needed(scores, scores, 1.0, comparisons=5)
    assert many > one


@pytest.mark.parametrize("difference", [1e-9, 1e9])
def test_the_search_for_seeds_ends_at_both_extremes(difference):
    scores = np.array([1.0, 2.0])
    low, high = power.seeds_needed(scores, scores, difference)
    assert 2 <= low <= high <= power.MOST_SEEDS


def test_unmeasured_noise_needs_an_unknown_number_of_seeds():
    constant = np.array([1.0, 1.0])
    assert power.seeds_needed(constant, constant, 1.0) is None
    assert power.seeds_needed(constant[:1], constant[:1], 1.0) is None
    assert power.seeds_needed(constant, np.array([1.0, 2.0]), 0.0) is None
