"""The variance components are unbiased: exactly, over all designs drawn from a small population."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from raymdm.diffusion.decomposition import (
    bootstrap_crossed,
    bootstrap_direct,
    bootstrap_nested,
    crossed,
    direct_variance,
    nested,
)

SEQUENCES = np.array([0.8, 0.2])
RATES = np.array([0.35, 0.65])
MASKS = np.array([0.7, 0.3])
# y[sequence, rate, mask, component]
POPULATION = np.random.default_rng(0).normal(3.0, 1.0, (2, 2, 2, 2))
PAIRS = list(product(range(2), range(2)))


def exact() -> dict[str, float]:
    """The components of the population, from their definitions."""
    g = np.einsum("stmd,m->std", POPULATION, MASKS)
    by_sequence = np.einsum("std,t->sd", g, RATES)
    by_rate = np.einsum("std,s->td", g, SEQUENCES)
    mean = RATES @ by_rate
    within = np.einsum("stmd,s,t,m->", (POPULATION - g[:, :, None]) ** 2, SEQUENCES, RATES, MASKS)
    over_rates = np.einsum("std,s,t->", (g - by_sequence[:, None]) ** 2, SEQUENCES, RATES)
    main = np.einsum("td,t->", (by_rate - mean) ** 2, RATES)
    between = np.einsum("sd,s->", (by_sequence - mean) ** 2, SEQUENCES)
    total = np.einsum("stmd,s,t,m->", (POPULATION - mean) ** 2, SEQUENCES, RATES, MASKS)
    return {
        "A": within,
        "B": over_rates,
        "B1": main,
        "B2": over_rates - main,
        "C": between,
        "total": total,
    }


def expected(
    estimate: Callable[[np.ndarray], object], rates: list[tuple[np.ndarray, float]]
) -> dict[str, float]:
    """The exact mean of an estimate over all designs of 2 sequences × 2 rates × 2 masks.

    Args:
        estimate: from values[2, 2, 2, D] to components.
        rates: every choice of rates [2, 2] (sequence, number of the rate) with its probability.
    """
    sums: dict[str, float] = {}
    masks = np.array(list(product(range(2), repeat=8))).reshape(-1, 2, 2, 2)
    mask_law = MASKS[masks].prod((1, 2, 3))
    for sequences in PAIRS:
        row = np.array(sequences)[:, None, None]
        for t, chance in rates:
            drawn = POPULATION[row, t[:, :, None], masks]
            law = SEQUENCES[list(sequences)].prod() * chance * mask_law
            found = [estimate(values) for values in drawn]
            for name in (*vars(found[0]), "total"):
                part = float(law @ [getattr(one, name) for one in found])
                sums[name] = sums.get(name, 0.0) + part
    return sums


def simulated(
    random: np.random.Generator,
    shape: tuple[int, int, int, int],
    variances: tuple[float, float, float, float],
    shared_rates: bool,
) -> np.ndarray:
    """Normal values[S, T, M, D] around 5 with the components (A, B1, B2, C)."""
    S, T, _, D = shape
    sizes = (shape, (1 if shared_rates else S, T, 1, D), (S, T, 1, D), (S, 1, 1, D))
    effects = [
        np.sqrt(variance / D) * random.standard_normal(size)
        for variance, size in zip(variances, sizes, strict=True)
    ]
    return 5.0 + sum(effects)


def test_nested_components_are_unbiased_over_all_designs():
    draws = list(product(range(2), repeat=4))
    rates = [(np.array(t).reshape(2, 2), RATES[list(t)].prod()) for t in draws]
    found, truth = expected(nested, rates), exact()
    for name in ("A", "B", "C", "total"):
        assert found[name] == pytest.approx(truth[name], abs=1e-10)


def test_crossed_components_are_unbiased_over_all_designs():
    rates = [(np.array([t, t]), RATES[list(t)].prod()) for t in PAIRS]
    found, truth = expected(crossed, rates), exact()
    for name in ("A", "B1", "B2", "C", "total"):
        assert found[name] == pytest.approx(truth[name], abs=1e-10)


def test_stratified_rates_make_the_nested_components_wrong():
    """Two equal strata of one rate each, both drawn once for every sequence."""
    orders = [np.array([0, 1]), np.array([1, 0])]
    rates = [(np.stack(pair), 0.25) for pair in product(orders, repeat=2)]
    found = expected(nested, rates)
    g = np.einsum("stmd,m->std", POPULATION, MASKS)
    means = g.mean(1)
    B = SEQUENCES @ ((g - means[:, None]) ** 2).sum(2).mean(1)
    C = SEQUENCES @ ((means - SEQUENCES @ means) ** 2).sum(1)
    assert found["A"] == pytest.approx(
        np.einsum("stmd,s,m->", (POPULATION - g[:, :, None]) ** 2, SEQUENCES, MASKS) / 2, abs=1e-10
    )
    assert found["B"] == pytest.approx(2 * B, abs=1e-10)
    assert found["C"] == pytest.approx(C - B, abs=1e-10)


def test_the_components_are_the_mean_squares_of_the_design_note():
    y = np.random.default_rng(1).exponential(size=(4, 5, 3, 2))
    S, T, M, _ = y.shape
    cell, row, column, mean = y.mean(2), y.mean((1, 2)), y.mean((0, 2)), y.mean((0, 1, 2))
    MS_W = ((y - cell[:, :, None]) ** 2).sum() / (S * T * (M - 1))
    MS_T = M * ((cell - row[:, None]) ** 2).sum() / (S * (T - 1))
    MS_S = T * M * ((row - mean) ** 2).sum() / (S - 1)
    found = nested(y)
    wanted = (MS_W, (MS_T - MS_W) / M, (MS_S - MS_T) / (T * M))
    np.testing.assert_allclose((found.A, found.B, found.C), wanted, rtol=1e-10)
    MS_t = S * M * ((column - mean) ** 2).sum() / (T - 1)
    MS_I = M * ((cell - row[:, None] - column + mean) ** 2).sum() / ((S - 1) * (T - 1))
    both = crossed(y)
    wanted = (MS_W, (MS_t - MS_I) / (S * M), (MS_I - MS_W) / M, (MS_S - MS_I) / (T * M))
    np.testing.assert_allclose((both.A, both.B1, both.B2, both.C), wanted, rtol=1e-10)


def test_total_and_B_are_sums():
    values = np.random.default_rng(2).standard_normal((4, 5, 3, 2))
    found, both = nested(values), crossed(values)
    assert found.total == found.A + found.B + found.C
    assert both.B == both.B1 + both.B2
    assert both.total == pytest.approx(both.A + both.B + both.C, abs=1e-14)


@pytest.mark.parametrize("estimate", [nested, crossed])
def test_components_of_vectors_are_sums_over_their_coordinates(
    estimate: Callable[[np.ndarray], object],
):
    values = np.random.default_rng(3).standard_normal((4, 5, 3, 6))
    whole = vars(estimate(values))
    parts = [vars(estimate(values[..., [d]])) for d in range(6)]
    for name, value in whole.items():
        assert value == pytest.approx(sum(part[name] for part in parts), abs=1e-12)


@pytest.mark.parametrize("estimate", [nested, crossed])
def test_the_order_and_the_mean_of_the_values_do_not_matter(
    estimate: Callable[[np.ndarray], object],
):
    random = np.random.default_rng(4)
    values = random.standard_normal((4, 5, 3, 6))
    shuffled = values[random.permutation(4)][:, random.permutation(5)][:, :, random.permutation(3)]
    rotation, _ = np.linalg.qr(random.standard_normal((6, 6)))
    for other in (shuffled, values @ rotation, values + 1e6):
        for name, value in vars(estimate(values)).items():
            assert getattr(estimate(other), name) == pytest.approx(value, abs=1e-8)


def test_components_below_zero_are_left_so():
    values = np.random.default_rng(5).standard_normal((3, 3, 2, 1))
    values -= values.mean(2, keepdims=True)  # Masks only: every cell mean is the same.
    found, both = nested(values), crossed(values)
    assert pytest.approx(-found.A / 2) == found.B
    assert pytest.approx(-both.A / 2) == both.B2
    values = np.random.default_rng(5).standard_normal((3, 3, 2, 1))
    values -= values.mean((1, 2), keepdims=True)
    assert nested(values).C < 0
    assert crossed(values).C < 0


def test_the_direct_variance_is_the_sample_variance_and_agrees_with_the_components():
    random = np.random.default_rng(6)
    draws = random.standard_normal((50, 3))
    assert direct_variance(draws) == pytest.approx(draws.var(0, ddof=1).sum())
    values = simulated(random, (200, 40, 2, 2), (1.0, 0.5, 0.3, 0.2), False)
    low, high = bootstrap_direct(values[:, 0, 0], seed=0)
    assert low < nested(values).total < high


@pytest.mark.parametrize("shared_rates", [False, True])
@pytest.mark.parametrize("shape", [(16, 6, 2, 1), (10, 5, 2, 200)])
def test_the_intervals_cover_the_truth(shape: tuple[int, int, int, int], shared_rates: bool):
    random = np.random.default_rng(7)
    A, B1, B2, C = variances = (1.0, 0.5, 0.3, 0.2)
    truth = {"A": A, "B": B1 + B2, "B1": B1, "B2": B2, "C": C, "total": sum(variances)}
    intervals = bootstrap_crossed if shared_rates else bootstrap_nested
    hits = dict.fromkeys(truth, 0)
    sets = 200
    for seed in range(sets):
        values = simulated(random, shape, variances, shared_rates)
        found = intervals(values, seed=seed, resamples=200)
        for name, (low, high) in found.items():
            hits[name] += low <= truth[name] <= high
    assert set(found) == set(truth) - (set() if shared_rates else {"B1", "B2"})
    assert all(hits[name] >= 0.85 * sets for name in found), hits


def test_the_nested_intervals_are_not_needlessly_wide():
    """Where coverage of exactly 95% can be had: many sequences, many components."""
    random = np.random.default_rng(8)
    shape, variances = (30, 5, 2, 40), (1.0, 0.5, 0.3, 0.2)
    sets = [simulated(random, shape, variances, False) for _ in range(200)]
    estimates = [vars(nested(values)) for values in sets]
    for name in ("A", "B", "C"):
        spread = np.std([estimate[name] for estimate in estimates])
        found = [bootstrap_nested(values, seed=0, resamples=200)[name] for values in sets[:40]]
        width = np.mean([high - low for low, high in found])
        assert 0.85 < width / (2 * 1.96 * spread) < 1.25


def test_the_direct_interval_covers_the_truth():
    random = np.random.default_rng(9)
    hits = 0
    for seed in range(200):
        low, high = bootstrap_direct(random.standard_normal((40, 3)), seed=seed, resamples=200)
        hits += low <= 3 <= high
    assert 170 <= hits <= 198


def test_intervals_are_a_function_of_the_seed_and_widen_with_the_level():
    values = simulated(np.random.default_rng(10), (8, 6, 2, 3), (1.0, 0.5, 0.3, 0.2), True)
    for intervals in (bootstrap_nested, bootstrap_crossed):
        found = intervals(values, seed=1, resamples=300)
        assert found == intervals(values, seed=1, resamples=300)
        assert found != intervals(values, seed=2, resamples=300)
        narrow = intervals(values, seed=1, resamples=300, level=0.5)
        for name, (low, high) in found.items():
            assert low < narrow[name][0] < narrow[name][1] < high


def test_two_sequences_and_two_rates_are_enough_for_finite_intervals():
    values = np.random.default_rng(11).standard_normal((2, 2, 2, 1))
    for intervals in (bootstrap_nested, bootstrap_crossed):
        assert np.isfinite(list(intervals(values, seed=0, resamples=50).values())).all()


def test_values_of_another_shape_are_refused():
    for shape in ((4, 4, 4), (1, 4, 2, 1), (4, 1, 2, 1), (4, 4, 1, 1)):
        for estimate in (nested, crossed):
            with pytest.raises(ValueError, match="sequences, rates, masks"):
                estimate(np.zeros(shape))
    with pytest.raises(ValueError, match="two draws"):
        direct_variance(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="two draws"):
        direct_variance(np.zeros(3))
