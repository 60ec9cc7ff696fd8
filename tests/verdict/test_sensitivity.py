"""What stands beside a verdict, against published examples, scipy and simulation."""

from math import isnan, sqrt

import numpy as np
import pytest
from scipy import stats

from raymdm.verdict import sensitivity, statistics

# Student (1908): hours of sleep gained by ten patients under two drugs; R's `sleep`.
SLEEP_1 = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
SLEEP_2 = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
# Darwin's maize, crossed minus self-fertilised, in eighths of an inch (Fisher 1935, section 17).
MAIZE = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48.0])
# The first two batches of the example in the documentation of scipy.stats.levene.
LEVENE_A = np.array([8.88, 9.12, 9.04, 8.98, 9.00, 9.08, 9.01, 8.85, 9.06, 8.99])
LEVENE_B = np.array([8.88, 8.95, 9.29, 9.44, 9.15, 9.58, 8.36, 9.18, 8.67, 9.05])


def test_students_sleep_data_paired_and_unpaired():
    """R's documentation of `t.test` prints both."""
    test = sensitivity.paired(SLEEP_1, SLEEP_2)
    assert test.p == pytest.approx(0.002833, abs=1e-6)
    assert test.interval == pytest.approx((-2.4598858, -0.7001142), abs=1e-6)
    assert test.correlation == pytest.approx(0.7951702, abs=1e-6)
    welch = statistics.welch(SLEEP_1, SLEEP_2)
    assert welch.p == pytest.approx(0.07939, abs=1e-5)
    assert welch.interval == pytest.approx((-3.3654832, 0.2054832), abs=1e-6)


def test_the_parts_of_welchs_test_are_those_of_its_p():
    parts = statistics.welch_parts(SLEEP_1, SLEEP_2)
    assert parts.freedom == pytest.approx(17.776, abs=1e-3)
    assert parts.difference / parts.error == pytest.approx(-1.8608, abs=1e-4)


def test_fishers_exact_sign_flips_of_darwins_maize():
    """1,726 of the 32,768 patterns are as extreme (Fisher 1935, section 21)."""
    test = sensitivity.paired(MAIZE, np.zeros(15))
    assert test.p_sign_flip == pytest.approx(1726 / 32768)
    assert test.p == pytest.approx(0.0497, abs=1e-4)


def test_eight_pairs_that_all_agree_reach_the_floor_of_the_sign_flips():
    test = sensitivity.paired(np.arange(8.0) + 10, np.arange(8.0) ** 1.1)
    assert test.p_sign_flip == pytest.approx(2 / 2**8)


def test_pairs_that_do_not_differ_or_are_too_few_have_no_test():
    assert isnan(sensitivity.paired(SLEEP_1, SLEEP_1).p)
    assert isnan(sensitivity.paired(SLEEP_1[:1], SLEEP_2[:1]).p)
    assert isnan(sensitivity.paired(SLEEP_1[:2], SLEEP_2[:2]).correlation)


def test_brown_and_forsythe_is_an_analysis_of_variance_of_distances_from_the_median():
    distances = [np.abs(side - np.median(side)) for side in (LEVENE_A, LEVENE_B)]
    expected = stats.f_oneway(*distances).pvalue
    assert sensitivity.brown_forsythe(LEVENE_A, LEVENE_B) == pytest.approx(expected)
    assert expected < 0.01


def test_the_bca_interval_is_efrons():
    """Against the formula written out: bias from the bootstrap, acceleration from the jackknife."""
    first, second = np.exp(SLEEP_2 / 3), SLEEP_1
    low, high = sensitivity.bca(first, second)
    random = np.random.default_rng(1)
    draws = np.sort(
        random.choice(first, (50_000, 10)).mean(1) - random.choice(second, (50_000, 10)).mean(1)
    )
    bias = stats.norm.ppf(np.mean(draws < first.mean() - second.mean()))
    influences = [(side - side.mean()) / 9 * sign for side, sign in ((first, 1), (second, -1))]
    cubes, squares = (sum((i**k).sum() / 10**k for i in influences) for k in (3, 2))
    acceleration = cubes / squares**1.5 / 6
    for z, found in ((stats.norm.ppf(0.025), low), (stats.norm.ppf(0.975), high)):
        share = stats.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        assert found == pytest.approx(np.quantile(draws, share), abs=0.06)


def test_the_bootstrap_is_refused_below_eight_seeds_and_repeats_itself():
    assert isnan(sensitivity.bca(SLEEP_1[:7], SLEEP_2)[0])
    assert sensitivity.bca(SLEEP_1[:8], SLEEP_2) == sensitivity.bca(SLEEP_1[:8], SLEEP_2)
    assert isnan(sensitivity.bca(np.ones(8), np.ones(8))[0])


def test_hedges_g_is_cohens_d_without_its_bias():
    g, _ = sensitivity.hedges_g(SLEEP_2, SLEEP_1)
    pooled = sqrt((np.var(SLEEP_1, ddof=1) + np.var(SLEEP_2, ddof=1)) / 2)
    # Hedges (1981): close to 1 - 3 / (4 df - 1).
    assert g == pytest.approx(1.58 / pooled * (1 - 3 / (4 * 18 - 1)), rel=1e-3)
    assert sensitivity.hedges_factor(10) == pytest.approx(0.9228, abs=1e-4), "Hedges's table"


def test_the_effect_at_either_end_of_the_interval_would_show_this_t_in_2_5_percent():
    _, (low, high) = sensitivity.hedges_g(SLEEP_2, SLEEP_1)
    t = stats.ttest_ind(SLEEP_2, SLEEP_1).statistic
    assert stats.nct.sf(t, 18, low * sqrt(5)) == pytest.approx(0.025)
    assert stats.nct.cdf(t, 18, high * sqrt(5)) == pytest.approx(0.025)


@pytest.mark.parametrize("seeds", [3, 8, 10])
def test_every_effect_has_an_interval_around_it(seeds):
    """Where the noncentral t of scipy gives NaN, far out, whole comparisons ended."""
    scores = np.linspace(-1, 1, seeds)
    for shift in np.linspace(-3, 3, 121):
        g, (low, high) = sensitivity.hedges_g(scores + shift, scores)
        assert low < g / sensitivity.hedges_factor(2 * seeds - 2) < high


def test_two_seeds_cannot_say_anything_of_a_spread():
    """Both always lie equally far from their median, which would make p zero."""
    assert isnan(sensitivity.brown_forsythe(np.array([1.0, 1.1]), np.array([0.0, 9.0])))


def test_the_share_of_pairs_won_is_mann_and_whitneys():
    u = stats.mannwhitneyu(SLEEP_2, SLEEP_1).statistic
    assert sensitivity.wins(SLEEP_2, SLEEP_1) == pytest.approx(u / 100)
    assert sensitivity.wins(np.array([1.0]), np.array([1.0])) == 0.5


def test_where_it_says_90_percent_the_next_run_wins_in_90_percent_of_experiments():
    random = np.random.default_rng(2)
    said = []
    for _ in range(1000):
        first, second = random.normal(0, 1, 5), random.normal(0, 2, 6)
        # A head start with which the next two runs just tie: it says q or less in a share q of
        # the experiments.
        behind = random.normal(0, 1) - random.normal(0, 2)
        said.append(sensitivity.next_run_wins(first - behind, second))
    for share in (0.1, 0.5, 0.9):
        assert np.mean(np.array(said) < share) == pytest.approx(share, abs=0.04)


def test_three_separate_seeds_do_not_make_the_next_run_certain():
    first, second = np.array([62.02, 58.61, 60.96]), np.array([50.64, 53.22, 53.68])
    assert sensitivity.wins(first, second) == 1.0
    assert 0.95 < sensitivity.next_run_wins(first, second) < 0.99
