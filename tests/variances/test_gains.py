"""Variances of whole batches: what is fixed, what is redrawn, and honest ratios."""

import numpy as np
import pytest

from raymdm.variances.gains import BatchVariances, ratio, resampled_groups


def batches(
    groups: int, between: float, within: float, seed: int, dimension: int = 3
) -> np.ndarray:
    """Means [G, 2, D] of groups with a variance of their own, each run twice."""
    random = np.random.default_rng(seed)
    own = random.normal(0, np.sqrt(between), (groups, 1, dimension))
    return 7.0 + own + random.normal(0, np.sqrt(within), (groups, 2, dimension))


def test_fixed_rows_show_the_noise_within_groups_and_redrawn_ones_all_of_it():
    values = BatchVariances(batches(1500, 0.5, 2.0, seed=1, dimension=40), batch_size=8)
    assert values.fixed()[0] == pytest.approx(8 * 40 * 2.0, rel=0.02)
    assert values.redrawn()[0] == pytest.approx(8 * 40 * 2.5, rel=0.02)


def test_they_are_the_sample_variances_written_out():
    values = batches(9, 1.0, 1.0, seed=2)
    both = BatchVariances(values, batch_size=4)
    spread = np.mean([values[:, run].var(0, ddof=1).sum() for run in (0, 1)])
    assert both.redrawn()[0] == pytest.approx(4 * spread, rel=1e-12)
    pairs = values.var(1, ddof=1).sum(-1).mean()
    assert both.fixed()[0] == pytest.approx(4 * pairs, rel=1e-12)


def test_a_resample_in_which_groups_repeat_is_not_biased_by_it():
    """Repeated groups do not differ from each other; the divisor makes up for that."""
    values = BatchVariances(batches(12, 1.0, 1.0, seed=3), batch_size=1)
    weights = resampled_groups(seed=0, count=20000, groups=12)
    assert values.redrawn(weights).mean() == pytest.approx(values.redrawn()[0], rel=0.03)


def test_an_estimator_against_itself_is_exactly_one():
    values = BatchVariances(batches(10, 1.0, 1.0, seed=4), batch_size=2)
    same = ratio(values.redrawn, values.redrawn, resampled_groups(0, 200, 10))
    assert (same.value, same.low, same.high) == (1.0, 1.0, 1.0)


def test_intervals_of_ratios_cover_the_truth():
    inside = 0
    for seed in range(100):
        above = BatchVariances(batches(64, 0.0, 1.0, 2 * seed, 30), batch_size=1)
        below = BatchVariances(batches(64, 0.0, 2.0, 2 * seed + 1, 30), batch_size=1)
        found = ratio(above.redrawn, below.redrawn, resampled_groups(seed, 200, 64))
        inside += found.low <= 0.5 <= found.high
    assert inside >= 85
