"""The probe measures sqrt(E[l²|t]) over masks and rows, over the whole interval, reproducibly."""

import numpy as np
import pytest
from scipy import stats
from tiny import (
    MASK,
    PROMPT,
    RESPONSE,
    certain_model,
    cross_entropy_sums,
    make_rows,
    mask_law,
    repeated,
    tiny_model,
)

from raymdm.diffusion import Estimator, make_estimator
from raymdm.diffusion.probe import positive, probe_loss

STANDARD = make_estimator("standard")
PAIRS = [(PROMPT, RESPONSE), ((2,), (5, 0, 5)), ((6, 6, 1), (11, 4))]


def count_moments(estimator: Estimator, n: int, t: float) -> tuple[float, float]:
    """E[(k/K)²] and E[(k/K)⁴], k the tokens masked in all K views of a response of n.

    Up to alpha = 1/2 the two views of MIRROR mask disjoint tokens, above it every token once and
    some twice: either way k is binomial.
    """
    alpha = float(estimator.mask_probability(np.array(t)))
    if estimator.masker.views == 1:
        counts, law = np.arange(n + 1), stats.binom(n, alpha)
        probability = law.pmf(counts)
    else:
        extra = np.arange(n + 1)
        probability = stats.binom(n, 2 * alpha - (alpha > 0.5)).pmf(extra)
        counts = (extra + n * (alpha > 0.5)) / 2
    return (probability * counts**2).sum(), (probability * counts**4).sum()


def assert_close(measured: np.ndarray, second: np.ndarray, fourth: np.ndarray, draws: int):
    """`measured` root moments from `draws` losses lie within 4.5 standard errors of the exact."""
    error = np.sqrt((fourth - second**2) / draws)
    assert (abs(measured**2 - second) < 4.5 * error + 1e-9).all()
    assert (error / second)[len(second) // 4 :].max() < 0.1  # The test is not empty.


@pytest.mark.parametrize("name", ["standard", "mirror"])
def test_it_meets_the_closed_form_where_every_token_costs_the_same(name: str):
    n, rows, masks = 12, 40, 30
    estimator, row = make_estimator(name), make_rows([((3,), (1,) * n)])
    t, root = probe_loss(
        certain_model(), MASK, repeated(row, rows), estimator, seed=0, rates=8, masks=masks
    )
    alpha = estimator.mask_probability(t)
    price = np.log(12) / (n * alpha)
    second, fourth = np.array([count_moments(estimator, n, rate) for rate in t]).T
    assert_close(root, price**2 * second, price**4 * fourth, rows * masks)
    if name == "standard":
        np.testing.assert_allclose(second / (n * alpha) ** 2, 1 + (1 - alpha) / (n * alpha))


def test_it_equals_the_sum_over_all_masks_of_a_real_model():
    model, row = tiny_model(), make_rows([(PROMPT, RESPONSE)])
    rows, masks = 50, 24
    t, root = probe_loss(
        model, MASK, repeated(row, rows), STANDARD, seed=1, rates=10, masks=masks, batch_size=50
    )
    sums = cross_entropy_sums(model, row).detach().numpy()
    alpha = STANDARD.mask_probability(t)
    law = np.array([mask_law(row, a).numpy() for a in alpha])
    losses = sums / (4 * alpha[:, None])
    assert_close(root, (law * losses**2).sum(-1), (law * losses**4).sum(-1), rows * masks)


def test_the_moment_is_pooled_over_rows():
    """The mean of l² over rows, root after: at the highest rates nearly all tokens are masked."""
    model, rows = tiny_model(), make_rows(PAIRS)
    t, root = probe_loss(model, MASK, rows, STANDARD, seed=0, rates=600, masks=1)
    full = [cross_entropy_sums(model, make_rows([pair]))[-1].item() for pair in PAIRS]
    wanted = np.sqrt(np.mean((np.array(full) / [4, 3, 2]) ** 2))
    assert root[-1] == pytest.approx(wanted, rel=0.01)
    assert t[-1] > 0.998


def test_rates_are_stratified_over_the_whole_interval():
    t, root = probe_loss(tiny_model(), MASK, make_rows(PAIRS), STANDARD, seed=4, rates=32, masks=1)
    assert np.floor(t * 32).tolist() == list(range(32))
    assert (root >= 0).all()
    assert len(np.unique((t * 32) % 1)) == 32


def test_every_rate_has_masks_of_its_own():
    """With masks shared by all rates the number of masked tokens could only grow with the rate."""
    rows = make_rows([((3,), (1,) * 20)])
    t, root = probe_loss(certain_model(), MASK, rows, STANDARD, seed=0, rates=64, masks=1)
    counts = root * STANDARD.mask_probability(t) * 20 / np.log(12)
    assert (np.diff(counts[8:]) < -0.5).any()


def test_the_curve_is_a_function_of_the_seed_and_not_of_the_micro_batches():
    def curve(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        rows = make_rows(PAIRS, [3, 50, 9])
        return probe_loss(
            tiny_model(), MASK, rows, STANDARD, seed=seed, rates=8, masks=3, batch_size=size
        )

    (t, root), (same_t, same_root) = curve(2, 64), curve(2, 64)
    np.testing.assert_array_equal(t, same_t)
    np.testing.assert_array_equal(root, same_root)
    for size in (1, 2):
        np.testing.assert_allclose(curve(2, size)[1], root, rtol=1e-7)
    assert (curve(3, 64)[0] != t).all()


def test_a_rate_at_which_nothing_was_masked_gets_the_smallest_measured_moment():
    rows = make_rows([((3,), (8,))])
    _, measured = probe_loss(tiny_model(), MASK, rows, STANDARD, seed=0, rates=64, masks=1)
    root = positive(measured)
    assert (measured == 0).sum() > 1
    assert (root > 0).all()
    assert (root[measured == 0] == measured[measured > 0].min()).all()
    assert (root[measured > 0] == measured[measured > 0]).all()


def test_workers_that_share_the_rates_measure_the_same_curve():
    def curve(part: int = 0, parts: int = 1) -> np.ndarray:
        rows = make_rows(PAIRS, [3, 50, 9])
        return probe_loss(
            tiny_model(), MASK, rows, STANDARD, seed=2, rates=11, masks=2, part=part, parts=parts
        )[1]

    shares = [curve(part, 3) for part in range(3)]
    assert [int(np.isfinite(share).sum()) for share in shares] == [4, 4, 3]
    np.testing.assert_array_equal(np.nansum(shares, axis=0), curve())
