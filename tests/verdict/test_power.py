"""What so many seeds can see, against published tables, statsmodels and simulation."""

from math import isnan

import numpy as np
import pytest
from statsmodels.stats.power import TTestIndPower

from raymdm.errors import ConfigurationError
from raymdm.verdict import power


@pytest.mark.parametrize(("seeds", "effect"), [(26, 0.8), (64, 0.5), (394, 0.2)])
def test_the_detectable_difference_is_cohens(seeds, effect):
    """Cohen (1988), table 2.4.1: 80% power, two-sided 0.05, for d = 0.8, 0.5 and 0.2."""
    assert power.detectable_difference(seeds) < effect
    assert power.detectable_difference(seeds - 2) > effect


@pytest.mark.parametrize(("seeds", "comparisons"), [(3, 1), (8, 1), (8, 7), (24, 3)])
def test_the_detectable_difference_is_that_of_statsmodels(seeds, comparisons):
    level = 0.05 / comparisons
    expected = TTestIndPower().solve_power(nobs1=seeds, alpha=level, power=0.8)
    assert power.detectable_difference(seeds, comparisons) == pytest.approx(expected, rel=1e-6)


def test_two_seeds_under_many_comparisons_are_computed_where_statsmodels_overflows():
    effect = power.detectable_difference(2, 7)
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 100_000, 2))
    gap = np.abs(first.mean(1) - second.mean(1) + effect)
    error = np.sqrt((first.var(1, ddof=1) + second.var(1, ddof=1)) / 2)
    critical = 11.769  # t(2) at 0.05 / 7, two-sided.
    assert np.mean(gap / error > critical) == pytest.approx(0.8, abs=0.005)


def test_eight_seeds_against_eight_see_variance_ratios_beyond_five():
    low, high = power.variance_bounds(8, 8)
    assert high == pytest.approx(4.99, abs=0.005), "F(7, 7) at 97.5%, as in the tables"
    assert low == pytest.approx(1 / high)


@pytest.mark.parametrize(("n", "m", "comparisons"), [(8, 8, 1), (3, 3, 1), (24, 24, 3), (4, 12, 1)])
def test_the_detectable_variance_ratio_is_seen_in_80_percent_of_experiments(n, m, comparisons):
    ratio = power.detectable_variance_ratio(n, m, comparisons)
    random = np.random.default_rng(0)
    first, second = random.chisquare(n - 1, 100_000), random.chisquare(m - 1, 100_000)
    f = first / (n - 1) / (second / (m - 1))
    low, high = power.variance_bounds(n, m, comparisons)
    seen = [np.mean((f * true < low) | (f * true > high)) for true in (ratio, 1 / ratio)]
    assert min(seen) == pytest.approx(0.8, abs=0.005)


def test_the_plan_says_what_a_design_can_see():
    plan = power.reach(8, 7)
    assert plan.difference == pytest.approx(2.03, abs=0.01)
    assert plan.sd_ratio > power.reach(8, 1).sd_ratio > 3
    assert plan.p_floor_sign_flip == pytest.approx(2 / 2**8)
    assert not plan.rests_on_normality
    assert power.reach(3, 1).rests_on_normality


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1, 2), "1 seed per arm: no test can reach"),
        ((5, 0), "at least one other arm"),
        ((8, 7, "sign_flip"), "cannot go below p = 0.0078, which is 0.055 after Holm"),
        ((3, 1, "permutation"), "cannot go below p = 0.1"),
    ],
)
def test_a_primary_test_that_cannot_become_significant_is_refused(arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        power.can_reach(*arguments)


@pytest.mark.parametrize(
    "arguments", [(2, 7), (8, 6, "sign_flip"), (4, 1, "permutation"), (24, 7, "sign_flip")]
)
def test_a_primary_test_that_can_is_not(arguments):
    power.can_reach(*arguments)


def test_one_seed_sees_nothing():
    assert isnan(power.detectable_difference(1))
    assert isnan(power.detectable_variance_ratio(1, 8))
