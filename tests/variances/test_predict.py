"""Predicted variances are exact where the probe is: all masks of a row, listed with their law."""

from math import comb

import numpy as np
import pytest
from scipy.stats import binom

from raymdm.diffusion import TimeDensity, make_estimator
from raymdm.diffusion.compose import estimator_section
from raymdm.diffusion.count_probe import CountMoments
from raymdm.variances.predict import Correlation, Prediction, limit

N = 4
RANDOM = np.random.default_rng(3)
SUMS = {k: RANDOM.gamma(3.0, k / 3, comb(N, k)) for k in range(1, N + 1)}
"""A made-up loss: the sum of the cross-entropies for every subset of N tokens, by its size."""
UNCORRELATED = Correlation(np.array([0.0, 1.0]), np.zeros(2))
T = np.linspace(0, 1, 20001) ** 3
MIDDLE, WIDTH = (T[1:] + T[:-1]) / 2, np.diff(T)
DENSITY = TimeDensity(np.linspace(3.0, 1.0, 1000))


def listed() -> CountMoments:
    """Every subset once for each of two equal rows in each of two halves; k as often as it is."""
    rows, lattices, counts, proposals, losses = [], [], [], [], []
    for row in (0, 1):
        for lattice in (0, 1):
            for k, sums in SUMS.items():
                for value in sums:
                    rows.append(row)
                    lattices.append(lattice)
                    counts.append(k)
                    # Listed once, it stands for a share of 1/15; a subset's law is 1/C(n, k).
                    proposals.append(comb(N, k) / sum(map(len, SUMS.values())))
                    losses.append(value)
    n = np.full(len(rows), N)
    as_arrays = map(np.array, (counts, proposals, rows, lattices, losses))
    return CountMoments(n, *as_arrays)


def moments_at(epsilon: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:
    """E[l|t] and E[l²|t] at the fine grid, from the definition."""
    alpha = (1 - epsilon) * MIDDLE + epsilon
    law = {k: binom.pmf(k, N, alpha) for k in SUMS}
    first = sum(law[k] * sums.mean() for k, sums in SUMS.items()) / (N * alpha)
    second = sum(law[k] * (sums**2).mean() for k, sums in SUMS.items()) / (N * alpha) ** 2
    return first, second


def predicted(preset: str, batch_size: int = 16, density: TimeDensity | None = None) -> float:
    estimator = make_estimator(preset, density)
    value = Prediction(listed(), "loss").variance(estimator, batch_size, UNCORRELATED)
    assert value is not None
    return value


def test_standard():
    first, second = moments_at()
    wanted = second @ WIDTH - (first @ WIDTH) ** 2
    assert predicted("standard") == pytest.approx(wanted, rel=1e-3)


def test_importance_sampling():
    first, second = moments_at()
    wanted = (second / DENSITY.pdf(MIDDLE)) @ WIDTH - (first @ WIDTH) ** 2
    assert predicted("ppots", density=DENSITY) == pytest.approx(wanted, rel=1e-3)


def test_the_lattice_leaves_the_conditional_variance_only():
    first, second = moments_at()
    assert predicted("lattice") == pytest.approx((second - first**2) @ WIDTH, rel=1e-3)


def test_strata_lie_between_the_lattice_and_independence():
    first, second = moments_at()
    strata = 4
    means = [first[(MIDDLE * strata).astype(int) == s] for s in range(strata)]
    widths = [WIDTH[(MIDDLE * strata).astype(int) == s] for s in range(strata)]
    removed = strata * sum(float(m @ w) ** 2 for m, w in zip(means, widths, strict=True))
    assert predicted("strats") == pytest.approx(second @ WIDTH - removed, rel=1e-3)
    assert predicted("lattice") < predicted("strats") < predicted("standard")


def test_antithetic_pairs_add_the_covariance_of_opposite_rates():
    first, second = moments_at()
    opposite = np.interp(1 - MIDDLE, MIDDLE, first)
    mean = first @ WIDTH
    wanted = second @ WIDTH - mean**2 + (first * opposite) @ WIDTH - mean**2
    assert predicted("antithetic") == pytest.approx(wanted, rel=1e-3)


def test_exact_counts():
    second = {k: (sums**2).mean() / k**2 for k, sums in SUMS.items()}
    first = {k: sums.mean() / k for k, sums in SUMS.items()}
    independent = make_estimator({"masker": {"kind": "count"}})
    prediction = Prediction(listed(), "loss")
    wanted = np.mean(list(second.values())) - np.mean(list(first.values())) ** 2
    assert prediction.variance(independent, 16, UNCORRELATED) == pytest.approx(wanted, rel=1e-9)
    spread = np.mean([second[k] - first[k] ** 2 for k in SUMS])
    assert predicted("count") == pytest.approx(spread, rel=1e-2)


def test_exact_counts_under_a_density():
    section = estimator_section("recommended")
    edges = DENSITY.cdf(np.arange(N + 1) / N)
    law = np.diff(edges)
    moments = [((sums**2).mean() - sums.mean() ** 2) / k**2 for k, sums in SUMS.items()]
    wanted = sum(moments / (N**2 * law))
    got = Prediction(listed(), "loss").variance(make_estimator(section, DENSITY), 16, UNCORRELATED)
    assert got == pytest.approx(wanted, rel=1e-2)


def test_independent_views_halve_what_the_masks_add():
    first, second = moments_at()
    # One row: all of the conditional variance comes from the masks.
    wanted = (first**2 + (second - first**2) / 2) @ WIDTH - (first @ WIDTH) ** 2
    assert predicted("multisample2") == pytest.approx(wanted, rel=1e-3)


def test_correlated_views_count_with_their_correlation():
    first, second = moments_at()
    correlation = Correlation(np.array([0.0, 1.0]), np.array([-0.5, -0.5]))
    got = Prediction(listed(), "loss").variance(make_estimator("mirror"), 16, correlation)
    wanted = (first**2 + (second - first**2) * 0.25) @ WIDTH - (first @ WIDTH) ** 2
    assert got == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize(("preset", "stratified"), [("standard", False), ("lattice", True)])
def test_no_density_beats_the_optimum_and_the_best_one_reaches_it(preset: str, stratified: bool):
    first, second = moments_at()
    root = np.sqrt(second - first**2 if stratified else second)
    least = (root @ WIDTH) ** 2 - (0.0 if stratified else (first @ WIDTH) ** 2)
    estimator = make_estimator(preset)
    prediction = Prediction(listed(), "loss")
    assert prediction.optimum(estimator, UNCORRELATED) == pytest.approx(least, rel=1e-2)
    assert limit(estimator.stratify) == ("stratified" if stratified else "iid")
    assert predicted(preset) > least


@pytest.mark.parametrize("preset", ["complement", "rotation4", "isad", "syrm", "clipped"])
def test_nothing_is_predicted_without_a_formula(preset: str):
    prediction = Prediction(listed(), "loss")
    assert prediction.variance(make_estimator(preset), 16, UNCORRELATED) is None
    assert prediction.optimum(make_estimator(preset), UNCORRELATED) is None
