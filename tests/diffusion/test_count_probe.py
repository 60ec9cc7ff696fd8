"""The count probe: curves at every rate, and of exact counts, from random numbers of masked tokens.

Exact values come from all masks of three short rows; the curves are exact too when the draws are
replaced by that list, every mask as probable as its number of tokens makes it.
"""

from dataclasses import replace
from functools import cache
from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch
from tiny import (
    MASK,
    PROMPT,
    RESPONSE,
    all_masks,
    cross_entropy_sums,
    make_rows,
    tiny_model,
)

from raymdm.diffusion import Rows, TimeDensity, make_estimator
from raymdm.diffusion.count_probe import (
    CountMoments,
    Which,
    _planned,
    count_curve,
    count_probe,
    rate_moments,
    row_mean_square,
)
from raymdm.diffusion.density import CELLS, density_curve, fit_density, power_density
from raymdm.diffusion.gradients import Sketch, gradient_parameters
from raymdm.diffusion.probe import Curve, grid_probe

PAIRS = [(PROMPT, RESPONSE), ((2,), (5, 0, 5)), ((6, 6, 1), (11, 4))]
SAMPLES = [3, 50, 9]
EPSILON = 1e-3
RATES = np.array([0.0, 0.013, 0.2, 0.5, 0.81, 1.0])
both = pytest.mark.parametrize("which", ["loss", "gradient"])


@cache
def listed(which: Which) -> list[np.ndarray]:
    """S of every row under every mask of `all_masks`, or its gradient: float64[2^n, dim]."""
    model, values = tiny_model(), []
    for pair in PAIRS:
        sums = cross_entropy_sums(model, make_rows([pair]))
        if which == "loss":
            values.append(sums.detach().numpy()[:, None])
            continue
        gradients = [
            torch.autograd.grad(total, list(model.parameters()), retain_graph=True)
            for total in sums
        ]
        values.append(
            np.stack([torch.cat([g.flatten() for g in row]).numpy() for row in gradients])
        )
    return values


def enumerated() -> CountMoments:
    """Every mask of every row once in each lattice, as if they were draws."""
    lengths, counts, rows = [], [], []
    for index, pair in enumerate(PAIRS):
        count = all_masks(make_rows([pair])).sum(-1).numpy()[1:]
        counts.append(count)
        lengths.append(np.full(len(count), len(pair[1])))
        rows.append(np.full(len(count), index))
    n, k, row = (np.concatenate(parts) for parts in (lengths, counts, rows))
    once = CountMoments(
        lengths=n,
        counts=k,
        proposals=np.array([comb(a, b) / (2**a - 1) for a, b in zip(n, k, strict=True)]),
        rows=row,
        lattices=np.zeros(len(n), dtype=np.int64),
        losses=np.concatenate([value[1:, 0] for value in listed("loss")]),
        sketches=np.concatenate([value[1:] for value in listed("gradient")]),
        squared_norms=np.concatenate([(v[1:] ** 2).sum(1) for v in listed("gradient")]),
    )
    twice = {
        name: np.concatenate([value, value])
        for name, value in vars(once).items()
        if name != "lattices"
    }
    return CountMoments(lattices=np.repeat([0, 1], len(n)), **twice)


def exact(which: Which, t: np.ndarray, by_token: bool = False) -> tuple[Curve, np.ndarray]:
    """The curve at every rate, and E|g(x0, t)|², from all masks."""
    alpha = ((1 - EPSILON) * t + EPSILON)[:, None]
    values, laws = [], []
    for pair, sums in zip(PAIRS, listed(which), strict=True):
        n, count = len(pair[1]), all_masks(make_rows([pair])).sum(-1).numpy()
        laws.append(alpha**count * (1 - alpha) ** (n - count) / alpha)
        values.append(sums if by_token else sums / n)

    def product(row: int, other: int) -> np.ndarray:
        """The product of the means of two rows, at every rate."""
        pairs: np.ndarray = (laws[row] @ (values[row] @ values[other].T) * laws[other]).sum(1)
        return pairs

    squares = [
        law @ (value**2).sum(1) / alpha[:, 0] for law, value in zip(laws, values, strict=True)
    ]
    means = [product(row, other) for row, other in ((0, 1), (0, 2), (1, 2))]
    curve = Curve(t, np.mean(squares, axis=0), np.mean(means, axis=0))
    return curve, np.mean([product(row, row) for row in range(3)], axis=0)


@both
def test_with_all_masks_listed_the_curves_at_every_rate_are_exact(which: Which):
    curve, row_square = exact(which, RATES)
    found = rate_moments(enumerated(), RATES, EPSILON, which)
    np.testing.assert_array_equal(found.t, RATES)
    np.testing.assert_allclose(found.second, curve.second, rtol=1e-9)
    np.testing.assert_allclose(found.mean_square, curve.mean_square, rtol=1e-9)
    of_rows = row_mean_square(enumerated(), RATES, EPSILON, which)
    np.testing.assert_allclose(of_rows, row_square, rtol=1e-9)


@both
def test_normalised_by_token_every_row_counts_by_its_length(which: Which):
    curve = exact(which, RATES, by_token=True)[0]
    found = rate_moments(enumerated().by_token(), RATES, EPSILON, which)
    np.testing.assert_allclose(found.second, curve.second, rtol=1e-9)
    np.testing.assert_allclose(found.mean_square, curve.mean_square, rtol=1e-9)


@both
def test_with_all_masks_listed_the_curve_of_exact_counts_is_the_mean_over_its_windows(which: Which):
    """In the window from x = low to high a row of n masks k = 1 + floor(n x) tokens."""
    moments = enumerated()
    found = count_curve(moments, 7, which)
    width = 16 / len(moments.counts)
    for point, u in enumerate(np.linspace(0, 1 - width, 7)):
        low, high = u**2, (u + width) ** 2
        assert found.t[point] == pytest.approx((low + high) / 2)
        squares, means = [], []
        for pair, sums in zip(PAIRS, listed(which), strict=True):
            n, count = len(pair[1]), all_masks(make_rows([pair])).sum(-1).numpy()
            edges = np.unique(np.clip(np.arange(n + 1) / n, low, high))
            shares = np.diff(edges) / (high - low)
            k = 1 + np.floor(n * (edges[1:] + edges[:-1]) / 2)
            values = [sums[count == tokens] / tokens for tokens in k]
            squares.append(shares @ [(value**2).sum(1).mean() for value in values])
            means.append(shares @ np.array([value.mean(0) for value in values]))
        assert found.second[point] == pytest.approx(np.mean(squares), rel=1e-9)
        products = [one @ other for one, other in combinations(means, 2)]
        assert found.mean_square[point] == pytest.approx(np.mean(products), rel=1e-9)


def rows() -> Rows:
    return make_rows(PAIRS, SAMPLES)


def probed(
    seed: int,
    draws: int,
    which: Which = "loss",
    batch_size: int = 64,
    part: int = 0,
    parts: int = 1,
) -> CountMoments:
    model, gradient = tiny_model(), None
    if which == "gradient":
        parameters = gradient_parameters(model, "all")
        gradient = (parameters, Sketch(0, 2**20, parameters))
    options = {"batch_size": batch_size, "part": part, "parts": parts}
    return count_probe(model, MASK, rows(), seed=seed, draws=draws, gradient=gradient, **options)


def assert_unbiased(found: list[np.ndarray], wanted: np.ndarray):
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (abs(np.mean(found, axis=0) - wanted) < 4.5 * error + 2e-3 * abs(wanted)).all()


@both
def test_drawn_masks_give_the_exact_curves_within_their_error(which: Which):
    seeds, draws = (30, 240) if which == "loss" else (7, 48)
    probes = [probed(seed, draws, which) for seed in range(seeds)]
    curve, row_square = exact(which, RATES)
    found = [rate_moments(moments, RATES, EPSILON, which) for moments in probes]
    assert_unbiased([one.second for one in found], curve.second)
    assert_unbiased([one.mean_square for one in found], curve.mean_square)
    # The test is not empty.
    assert (np.std([one.second for one in found], axis=0) < 0.3 * curve.second).all()
    assert_unbiased(
        [row_mean_square(moments, RATES, EPSILON, which) for moments in probes], row_square
    )
    # 50 listed draws or more: the windows of 3 points are a third wide either way.
    listed_curve = count_curve(enumerated(), 3, which)
    counted = [count_curve(moments, 3, which) for moments in probes]
    assert_unbiased([one.second for one in counted], listed_curve.second)
    assert_unbiased([one.mean_square for one in counted], listed_curve.mean_square)


def test_a_constant_loss_per_token_is_measured_without_error():
    """What the count alone contributes is put in exactly, however few draws fell near a rate."""
    moments = probed(0, 24)
    certain = replace(moments, losses=0.7 * moments.counts)
    curve = rate_moments(certain, RATES, EPSILON, "loss")
    np.testing.assert_allclose(curve.mean_square, 0.49, rtol=1e-12)
    alpha = (1 - EPSILON) * RATES + EPSILON
    assert (curve.second >= 0.49 * (1 + (1 - alpha) / (4 * alpha)) * (1 - 1e-9)).all()
    one_row = replace(certain, lengths=np.full(24, 4), rows=np.arange(24) % 2)
    wanted = 0.49 * (1 + (1 - alpha) / (4 * alpha))
    curve = rate_moments(one_row, RATES, EPSILON, "loss")
    np.testing.assert_allclose(curve.second, wanted, rtol=1e-9)


def test_squares_of_means_are_products_across_the_lattices_only():
    """Draws of one lattice depend on each other, the more so a draw on itself."""
    moments = probed(0, 24)
    sign = 1.0 - 2.0 * moments.lattices
    opposed = replace(moments, losses=sign * moments.counts)
    for found in (
        rate_moments(opposed, RATES, EPSILON, "loss").mean_square,
        row_mean_square(opposed, RATES, EPSILON, "loss"),
        count_curve(opposed, 4, "loss").mean_square,
    ):
        np.testing.assert_allclose(found, -1.0, rtol=1e-12)


def test_long_responses_have_finite_curves_up_to_the_rate_one():
    """Binomial weights are taken in logarithms: at t = 1 and n = 4096 all of these underflow."""
    n, draws = 4096, 64
    random = np.random.default_rng(0)
    k = random.integers(1, n - 100, draws)
    moments = CountMoments(
        lengths=np.full(draws, n),
        counts=k,
        proposals=np.full(draws, 1 / n),
        rows=np.arange(draws) // 2 % 8,
        lattices=np.arange(draws) % 2,
        losses=k * random.uniform(1, 2, draws),
    )
    t = np.linspace(0, 1, 200)
    curve = rate_moments(moments, t, EPSILON, "loss")
    per_row = row_mean_square(moments, t, EPSILON, "loss")
    alpha = (1 - EPSILON) * t + EPSILON
    for values in (curve.second / (1 + (1 - alpha) / (n * alpha)), curve.mean_square, per_row):
        assert (values >= 1).all()
        assert (values <= 4).all()


def test_counts_are_drawn_with_the_probability_that_is_noted():
    """The square of a uniform: stratified, so that frequencies agree to a few draws."""
    moments = probed(5, 3000)
    for row, (_, response) in enumerate(PAIRS):
        n = len(response)
        mine = moments.rows == row
        assert mine.sum() == 1000
        assert (moments.lengths[mine] == n).all()
        for k in range(1, n + 1):
            drawn = mine & (moments.counts == k)
            wanted = np.sqrt(k / n) - np.sqrt((k - 1) / n)
            np.testing.assert_allclose(moments.proposals[drawn], wanted)
            assert drawn.sum() / 1000 == pytest.approx(wanted, abs=0.06)
    for lattice in (0, 1):
        least = (moments.counts == 1) & (moments.lattices == lattice)
        wanted = sum(1 / np.sqrt(len(response)) for _, response in PAIRS) / 3
        assert least.sum() / 1500 == pytest.approx(wanted, abs=0.03)


def test_every_row_is_drawn_in_both_lattices_and_the_lattices_are_independent():
    products = []
    for seed in range(200):
        moments, u = _planned(seed, 16, np.full(4, 7))
        assert sorted(zip(moments.rows, moments.lattices, strict=True)) == [
            (row, lattice) for row in range(4) for lattice in (0, 0, 1, 1)
        ]
        for lattice in (0, 1):
            strata = np.floor(8 * np.sort(u[moments.lattices == lattice]))
            assert strata.tolist() == list(range(8))
        products.append((u[moments.lattices == 0] - 0.5) * (u[moments.lattices == 1] - 0.5))
    error = np.std(products) / np.sqrt(np.size(products))
    assert abs(np.mean(products)) < 4.5 * error
    assert error < 0.01  # A twelfth if they were the same.


def test_it_is_a_function_of_the_seed_and_not_of_the_micro_batches():
    one, same, other = probed(2, 50), probed(2, 50), probed(3, 50)
    np.testing.assert_array_equal(one.losses, same.losses)
    np.testing.assert_array_equal(one.counts, same.counts)
    assert (one.counts != other.counts).any()
    for size in (1, 7):
        np.testing.assert_allclose(probed(2, 50, batch_size=size).losses, one.losses, rtol=1e-9)


def test_what_it_draws_is_part_of_every_published_result():
    moments = probed(0, 16)
    assert moments.rows.tolist() == [1, 1, 0, 0, 2, 2, 1, 1, 0, 0, 2, 2, 1, 1, 0, 0]
    assert moments.counts.tolist() == [2, 1, 1, 1, 1, 2, 1, 1, 4, 1, 1, 2, 1, 2, 3, 1]
    np.testing.assert_allclose(moments.losses[:3], [7.982704726, 2.974276319, 5.156288737])


@both
def test_workers_that_share_the_draws_measure_the_same_moments(which: Which):
    size = 4
    whole = probed(2, 22, which, size)
    shares = [probed(2, 22, which, size, part, 3) for part in range(3)]
    assert [int(np.isfinite(share.losses).sum()) for share in shares] == (
        [8, 8, 6] if which == "loss" else [8, 7, 7]
    )
    for name, value in vars(CountMoments.merged(shares)).items():
        np.testing.assert_array_equal(value, getattr(whole, name))


def test_the_loss_of_a_draw_and_its_gradient_are_those_of_one_mask():
    loss, gradient = probed(4, 30), probed(4, 30, "gradient")
    np.testing.assert_allclose(gradient.losses, loss.losses, rtol=1e-12)
    for draw in range(30):
        masks = listed("loss")[loss.rows[draw]][:, 0]
        mask = abs(masks - loss.losses[draw]).argmin()
        assert masks[mask] == pytest.approx(loss.losses[draw], rel=1e-12)
        wanted = listed("gradient")[loss.rows[draw]][mask]
        np.testing.assert_allclose(gradient.sketches[draw], wanted, rtol=1e-7, atol=1e-9)
        assert gradient.squared_norms[draw] == pytest.approx((wanted**2).sum(), rel=1e-9)


def test_moments_that_were_not_measured_are_refused():
    with pytest.raises(ValueError, match="losses only"):
        rate_moments(probed(0, 16), RATES, EPSILON, "gradient")


def test_other_positions_may_be_made_eligible():
    everything = rows().attention_mask
    moments = count_probe(
        tiny_model(), MASK, rows(), seed=0, draws=60, batch_size=8, eligible=everything
    )
    assert sorted(set(moments.lengths.tolist())) == [4, 5, 6]
    assert moments.counts.max() > 4


def excess(density: TimeDensity, moment: np.ndarray) -> float:
    """How much larger ∫ moment/f is than its least value (∫ sqrt(moment))², cells of both alike."""
    return float((moment / density.cells).mean() / np.sqrt(moment).mean() ** 2 - 1)


@pytest.mark.parametrize(
    ("which", "target", "bounds"),
    [
        ("loss", "iid", {"epr": 0.04, "epr_pole": 0.002, "tabulated": 0.002}),
        ("loss", "stratified", {"epr": 0.15, "epr_pole": 0.02, "tabulated": 0.01}),
        ("gradient", "iid", {"epr": 0.2, "epr_pole": 0.03, "tabulated": 0.03}),
    ],
)
def test_fitted_to_128_draws_every_density_is_near_its_optimum(
    which: Which, target: str, bounds: dict[str, float]
):
    t = (np.arange(1, 33) / 32) ** 2
    nodes = (np.arange(CELLS)[:, None] + (np.arange(5) + 0.5) / 5) / CELLS
    optimum = exact(which, nodes.ravel())[0]
    moment = optimum.second - (optimum.mean_square if target == "stratified" else 0.0)
    moment = moment.reshape(nodes.shape).mean(1)
    curve = rate_moments(probed(1, 128, which), t, EPSILON, which)
    root = density_curve(curve.second, curve.mean_square, target)
    for kind, bound in bounds.items():
        density = fit_density(t, root, kind=kind, starts=3, epsilon=EPSILON)
        assert 0 <= excess(density, moment) < bound, kind
    assert 0 <= excess(power_density(EPSILON), moment) < 0.06
    assert excess(TimeDensity(np.ones(CELLS)), moment) > 0.3


def test_at_equal_forwards_it_fits_better_than_the_grid():
    """126 forwards each: the grid finds few masks, and often none, where the curve is steep."""
    nodes = (np.arange(CELLS)[:, None] + (np.arange(5) + 0.5) / 5) / CELLS
    moment = exact("loss", nodes.ravel())[0].second.reshape(nodes.shape).mean(1)
    t, standard = (np.arange(1, 33) / 32) ** 2, make_estimator("standard")
    found = []
    for seed in range(3):
        grid = grid_probe(tiny_model(), MASK, rows(), standard, seed=seed, rates=14, masks=3)
        count = rate_moments(probed(seed, 126), t, EPSILON, "loss")
        for curve in (grid, count):
            root = density_curve(curve.second, curve.mean_square, "iid")
            found.append(excess(fit_density(curve.t, root, kind="epr_pole", starts=2), moment))
    assert 10 * np.mean(found[1::2]) < np.mean(found[0::2])
