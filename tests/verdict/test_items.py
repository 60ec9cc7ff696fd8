"""Figures over items: hand-computed values, and errors that a bootstrap confirms."""

from math import isnan, sqrt

import numpy as np
import pandas as pd
import pytest

from raymdm.verdict.items import (
    first_right_step,
    over_denoised,
    ratio_of_sums,
    share,
    step_columns,
    step_rates,
    wilson,
)


def test_a_ratio_of_sums_weighs_items_by_their_denominators():
    """R = 4/8; deviations 1 - 1, 3 - 2, 0 - 1: sqrt(3/2 * 2) / 8."""
    estimate = ratio_of_sums([1, 3, 0], [2, 4, 2])
    assert estimate.value == 0.5
    assert estimate.standard_error == pytest.approx(sqrt(3) / 8)


def test_with_equal_denominators_the_error_is_that_of_the_mean():
    scores = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    estimate = ratio_of_sums(scores, np.ones(5))
    assert estimate.value == pytest.approx(0.6)
    assert estimate.standard_error == pytest.approx(scores.std(ddof=1) / sqrt(5))


def test_a_constant_ratio_has_no_error():
    assert ratio_of_sums([1, 2, 3], [2, 4, 6]) == (0.5, 0.0)


def test_a_bootstrap_gives_the_same_error():
    random = np.random.default_rng(0)
    below = random.integers(0, 6, 400)
    above = random.binomial(below, random.beta(2, 2, 400))
    draws = random.integers(0, 400, (4000, 400))
    ratios = above[draws].sum(axis=1) / below[draws].sum(axis=1)
    estimate = ratio_of_sums(above, below)
    assert estimate.standard_error == pytest.approx(ratios.std(ddof=1), rel=0.05)
    # An error that took the ratio's parts as binomial counts of the pooled total would be off.
    naive = sqrt(estimate.value * (1 - estimate.value) / below.sum())
    assert abs(naive / ratios.std(ddof=1) - 1) > 0.15


def test_what_the_items_do_not_define_is_nan():
    assert all(map(isnan, ratio_of_sums([0, 0], [0, 0])))
    value, error = ratio_of_sums([1], [2])
    assert value == 0.5
    assert isnan(error)
    assert all(map(isnan, (*share([]), *wilson([]))))


def test_a_share_has_the_binomial_error_and_wilson_s_interval():
    assert share([1, 0, 0, 0]) == (0.25, pytest.approx(sqrt(0.25 * 0.75 / 4)))
    # Newcombe 1998, table I: 81 of 263.
    assert wilson([1] * 81 + [0] * 182) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_at_zero_and_one_wilson_s_interval_still_has_a_width():
    """None of ten: z^2 / (n + z^2)."""
    z = 1.959964
    assert share([0] * 10).standard_error == 0
    assert wilson([0] * 10) == pytest.approx((0, z * z / (10 + z * z)))
    assert wilson([1] * 10) == pytest.approx((10 / (10 + z * z), 1))


@pytest.mark.parametrize(
    ("correct", "over", "first"),
    [
        ([False, True, False], True, 2),
        ([True, False, True], False, 1),
        ([False, False, True], False, 3),
        ([False, False], False, None),
        ([], False, None),
    ],
)
def test_over_denoised_is_right_at_some_step_and_wrong_at_the_end(correct, over, first):
    assert over_denoised(correct) is over
    assert first_right_step(correct) == first


def test_rates_over_a_set():
    paths = [[False, True, False], [True, True, True], [False, False, True], [False] * 3]
    items = pd.DataFrame([{"correct": float(path[-1]), **step_columns(path)} for path in paths])
    rates = step_rates(items)
    assert rates.items == 4
    assert rates.right_at_end.value == 0.5
    assert rates.right_at_some_step.value == 0.75
    assert rates.over_denoised == (0.25, pytest.approx(sqrt(0.25 * 0.75 / 4)))
    assert rates.first_right_step == (2.0, pytest.approx(1 / sqrt(3)))
    assert rates.as_json()["items"] == 4
    assert rates.as_json()["over_denoised"] == {
        "value": 0.25,
        "standard_error": pytest.approx(sqrt(0.25 * 0.75 / 4)),
    }


def test_items_without_a_trace_do_not_count():
    rows = [{"correct": 1.0, **step_columns([False, True])}, {"correct": 0.0}]
    items = pd.DataFrame(rows)
    assert step_rates(items).items == 1
    assert step_rates(items).right_at_end.value == 1.0
    assert step_rates(items[["correct"]]) is None
    assert step_rates(items.iloc[1:]) is None
