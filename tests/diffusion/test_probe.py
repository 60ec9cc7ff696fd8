"""The grid probe measures E|y|² and |E y|² given t, over masks, rows and the whole interval."""

import numpy as np
import pytest
from scipy import stats
from tiny import (
    MASK,
    PROMPT,
    RESPONSE,
    certain_model,
    cross_entropy_sums,
    loss_at,
    make_rows,
    mask_law,
    repeated,
    tiny_model,
)

from raymdm.diffusion import Estimator, make_estimator
from raymdm.diffusion.density import density_curve
from raymdm.diffusion.gradients import Sketch, gradient_parameters, row_gradients
from raymdm.diffusion.noise import mask_noise
from raymdm.diffusion.probe import Curve, grid_probe

STANDARD = make_estimator("standard")
PAIRS = [(PROMPT, RESPONSE), ((2,), (5, 0, 5)), ((6, 6, 1), (11, 4))]


def count_moments(estimator: Estimator, n: int, t: float) -> tuple[float, float]:
    """E[(k/K)²] and E[(k/K)⁴], k the tokens masked in all K views of a response of n.

    Up to alpha = 1/2 the two views of MIRROR mask disjoint tokens, above it every token once and
    some twice: either way k is binomial.
    """
    alpha = float(estimator.law.mask_probability(np.array(t)))
    if estimator.law.views == 1:
        counts, law = np.arange(n + 1), stats.binom(n, alpha)
        probability = law.pmf(counts)
    else:
        extra = np.arange(n + 1)
        probability = stats.binom(n, 2 * alpha - (alpha > 0.5)).pmf(extra)
        counts = (extra + n * (alpha > 0.5)) / 2
    return (probability * counts**2).sum(), (probability * counts**4).sum()


def assert_close(measured: np.ndarray, second: np.ndarray, fourth: np.ndarray, draws: int):
    """`measured` moments from `draws` losses lie within 4.5 standard errors of the exact."""
    error = np.sqrt((fourth - second**2) / draws)
    assert (abs(measured - second) < 4.5 * error + 1e-9).all()
    assert (error / second)[len(second) // 4 :].max() < 0.1  # The test is not empty.


@pytest.mark.parametrize("name", ["standard", "mirror"])
def test_it_meets_the_closed_form_where_every_token_costs_the_same(name: str):
    n, rows, masks = 12, 40, 30
    estimator, row = make_estimator(name), make_rows([((3,), (1,) * n)])
    curve = grid_probe(
        certain_model(), MASK, repeated(row, rows), estimator, seed=0, rates=8, masks=masks
    )
    t, alpha = curve.t, estimator.law.mask_probability(curve.t)
    price = np.log(12) / (n * alpha)
    second, fourth = np.array([count_moments(estimator, n, rate) for rate in t]).T
    assert_close(curve.second, price**2 * second, price**4 * fourth, rows * masks)
    if name == "standard":
        np.testing.assert_allclose(second / (n * alpha) ** 2, 1 + (1 - alpha) / (n * alpha))


def test_it_equals_the_sum_over_all_masks_of_a_real_model():
    model, row = tiny_model(), make_rows([(PROMPT, RESPONSE)])
    rows, masks = 50, 24
    curve = grid_probe(
        model, MASK, repeated(row, rows), STANDARD, seed=1, rates=10, masks=masks, batch_size=50
    )
    sums = cross_entropy_sums(model, row).detach().numpy()
    alpha = STANDARD.law.mask_probability(curve.t)
    law = np.array([mask_law(row, a).numpy() for a in alpha])
    losses = sums / (4 * alpha[:, None])
    assert_close(curve.second, (law * losses**2).sum(-1), (law * losses**4).sum(-1), rows * masks)


def test_the_moment_is_pooled_over_rows():
    """The mean of l² over rows: at the highest rates nearly all tokens are masked."""
    model, rows = tiny_model(), make_rows(PAIRS)
    curve = grid_probe(model, MASK, rows, STANDARD, seed=0, rates=600, masks=1)
    full = [cross_entropy_sums(model, make_rows([pair]))[-1].item() for pair in PAIRS]
    losses = np.array(full) / [4, 3, 2]
    assert curve.second[-1] == pytest.approx(np.mean(losses**2), rel=0.02)
    pairs = np.mean([losses[0] * losses[1], losses[0] * losses[2], losses[1] * losses[2]])
    assert curve.mean_square[-1] == pytest.approx(pairs, rel=0.02)
    assert curve.t[-1] > 0.998


def test_rates_are_stratified_over_the_whole_interval():
    curve = grid_probe(tiny_model(), MASK, make_rows(PAIRS), STANDARD, seed=4, rates=32, masks=1)
    assert np.floor(curve.t * 32).tolist() == list(range(32))
    assert (curve.second >= 0).all()
    assert len(np.unique((curve.t * 32) % 1)) == 32


def test_every_rate_has_masks_of_its_own():
    """With masks shared by all rates the number of masked tokens could only grow with the rate."""
    rows = make_rows([((3,), (1,) * 20)])
    curve = grid_probe(certain_model(), MASK, rows, STANDARD, seed=0, rates=64, masks=1)
    counts = np.sqrt(curve.second) * STANDARD.law.mask_probability(curve.t) * 20 / np.log(12)
    assert (np.diff(counts[8:]) < -0.5).any()


def test_the_mean_square_is_that_of_the_exact_mean():
    """Not of a noisy one: with few rows and masks most of that would be variance."""
    model, row, rows, probes = tiny_model(), make_rows([(PROMPT, RESPONSE)]), 3, 100
    sums = cross_entropy_sums(model, row).detach()
    errors, variances = [], []
    for seed in range(probes):
        batch = repeated(row, rows)
        curve = grid_probe(model, MASK, batch, STANDARD, seed=seed, rates=4, masks=1)
        alpha = STANDARD.law.mask_probability(curve.t)
        mean = np.array([loss_at(sums, row, rate).item() for rate in alpha])
        errors.append(curve.mean_square - mean**2)
        variances.append(curve.second - mean**2)
    bias, deviation = np.mean(errors, axis=0), np.std(errors, axis=0) / np.sqrt(probes)
    assert (abs(bias) < 4.5 * deviation).all()
    assert (np.mean(variances, axis=0) / rows > 4.5 * deviation).any()  # The test is not empty.


def measured(seed: int, **options: int) -> Curve:
    rows = make_rows(PAIRS, [3, 50, 9])
    return grid_probe(tiny_model(), MASK, rows, STANDARD, seed=seed, rates=11, masks=2, **options)


def test_the_curve_is_a_function_of_the_seed_and_not_of_the_micro_batches():
    one, same = measured(2), measured(2)
    for name in ("t", "second", "mean_square"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    for size in (1, 2):
        other = measured(2, batch_size=size)
        np.testing.assert_allclose(other.second, one.second, rtol=1e-7)
        np.testing.assert_allclose(other.mean_square, one.mean_square, rtol=1e-7)
    assert (measured(3).t != one.t).all()


def test_a_rate_at_which_nothing_was_masked_gets_the_smallest_measured_moment():
    rows = make_rows([((3,), (8,))])
    curve = grid_probe(tiny_model(), MASK, rows, STANDARD, seed=0, rates=64, masks=1)
    root, empty = density_curve(curve.second, curve.mean_square, "iid"), curve.second == 0
    assert empty.sum() > 1
    assert (root > 0).all()
    assert (root[empty] == root[~empty].min()).all()
    np.testing.assert_array_equal(root[~empty], np.sqrt(curve.second[~empty]))


def test_workers_that_share_the_rates_measure_the_same_curve():
    shares = [measured(2, part=part, parts=3) for part in range(3)]
    assert [int(np.isfinite(share.second).sum()) for share in shares] == [4, 4, 3]
    whole, one = Curve.merged(shares), measured(2)
    np.testing.assert_array_equal(whole.t, one.t)
    np.testing.assert_array_equal(whole.second, one.second)
    np.testing.assert_array_equal(whole.mean_square, one.mean_square)


def test_the_moments_of_the_gradient_are_those_of_single_rows():
    """The same masks, each row's gradient by a backward pass of its own, without any sketch."""
    model, rows, masks = tiny_model(), make_rows(PAIRS, [3, 50, 9]), 2
    parameters = gradient_parameters(model, "all")
    gradient = (parameters, Sketch(0, 2**20, parameters))
    estimator = make_estimator("mirror")
    curve = grid_probe(
        model, MASK, rows, estimator, seed=6, rates=8, masks=masks, gradient=gradient
    )
    for index in (0, 3, 7):
        noise = mask_noise(6, index + 1, rows.samples, rows.input_ids.shape[1], masks, "probe")
        found = np.zeros((masks, 3, gradient[1].dimension))
        for draw in range(masks):
            losses = estimator.row_losses(
                model, MASK, rows, np.full(3, curve.t[index]), noise[draw : draw + 1]
            )
            found[draw] = row_gradients(losses, *gradient)[0].numpy()
        assert curve.second[index] == pytest.approx((found**2).sum(-1).mean(), rel=1e-9)
        products = found.mean(0) @ found.mean(0).T
        pairs = (products.sum() - np.trace(products)) / 6
        assert curve.mean_square[index] == pytest.approx(pairs, rel=1e-9)


def test_without_any_masked_token_the_gradient_is_zero():
    model, rows = tiny_model(), make_rows([((3,), (8,)), ((2,), (1,))])
    parameters = gradient_parameters(model, "all")
    gradient = (parameters, Sketch(0, 2**20, parameters))
    curve = grid_probe(model, MASK, rows, STANDARD, seed=0, rates=16, masks=1, gradient=gradient)
    losses = grid_probe(model, MASK, rows, STANDARD, seed=0, rates=16, masks=1)
    assert (losses.second == 0).any()
    np.testing.assert_array_equal(curve.second == 0, losses.second == 0)


def test_a_sketched_gradient_keeps_its_exact_norm():
    model, rows = tiny_model(), make_rows(PAIRS, [3, 50, 9])
    parameters = gradient_parameters(model, "all")
    whole, small = (
        grid_probe(
            model, MASK, rows, STANDARD, seed=0, rates=8, masks=1, gradient=(parameters, sketch)
        )
        for sketch in (Sketch(0, 2**20, parameters), Sketch(0, 64, parameters))
    )
    np.testing.assert_allclose(small.second, whole.second, rtol=1e-12)
    assert (small.mean_square != whole.mean_square).all()
