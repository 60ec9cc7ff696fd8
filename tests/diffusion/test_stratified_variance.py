"""The NELBO's standard error under stratification, against the exact law of the estimate."""

from itertools import combinations

import numpy as np
import pytest
import torch
from tiny import MASK, make_rows, repeated
from torch import Tensor

from raymdm.diffusion import nelbo
from raymdm.diffusion.nelbo import Nelbo, stratified_variance

N = 9
RESPONSE = (1, 4, 2, 8, 0, 5, 3, 7, 6)
TIMES = 1600
ROW = make_rows([((3, 7), RESPONSE)])


class Stand:
    """In the place of a model: what is left to see makes a token easy, as after training.

    The cross-entropy of a token grows with the share of masked ones, differs by position, and
    depends on which neighbour is hidden.
    """

    gives_losses = True

    def __call__(self, shown: Tensor, attention: Tensor, select: Tensor, targets: Tensor) -> Tensor:
        hidden = (shown == MASK).double()
        share = hidden.sum(-1, keepdim=True) / N
        positions = torch.arange(shown.shape[1]) % 3
        return (0.2 + 3 * share**1.5 + 0.4 * positions + hidden.roll(1, -1))[select]


def weighted_sums() -> list[np.ndarray]:
    """(n/k) times the summed cross-entropy of every mask of k tokens, for k = 1..n, one by one."""
    result = []
    for k in range(1, N + 1):
        values = []
        for chosen in combinations(range(2, 2 + N), k):
            masked = torch.zeros_like(ROW.eligible)
            masked[0, list(chosen)] = True
            shown = ROW.input_ids.masked_fill(masked, MASK)
            losses = Stand()(shown, ROW.attention_mask, masked, ROW.input_ids[masked])
            values.append(N / k * losses.sum().item())
        result.append(np.array(values))
    return result


def strata(draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact mean and variance of the one value drawn in every stratum."""
    sums = weighted_sums()
    means, squares = (np.array([(x**p).mean() for x in sums]) for p in (1, 2))
    edges = np.arange(N + 1) / N
    share = (
        np.array(
            [
                np.clip(
                    np.minimum(edges[1:], (j + 1) / draws) - np.maximum(edges[:-1], j / draws), 0, 1
                )
                for j in range(draws)
            ]
        )
        * draws
    )
    return share @ means, share @ squares - (share @ means) ** 2


def measured(draws: int) -> Nelbo:
    """One estimate for each of many sample numbers."""
    return nelbo(Stand(), MASK, repeated(ROW, TIMES), exact_up_to=4, draws=draws, batch_size=4096)


@pytest.mark.parametrize(("draws", "tolerance"), [(5, 0.45), (8, 0.03), (12, 0.08)])
def test_the_standard_error_is_that_of_the_stratified_estimate(
    draws: int, tolerance: float
) -> None:
    """From above, within a tolerance of the variance; the draws' spread would be 20 times that."""
    means, variances = strata(draws)
    true = variances.sum() / draws**2
    result = measured(draws)
    error = np.sqrt(true / TIMES)
    assert abs(result.per_row.mean() - means.mean()) < 4 * error
    assert result.per_row.var() == pytest.approx(true, rel=0.12)
    noise = result.variance.std() / np.sqrt(TIMES)
    assert noise < 0.03 * true
    assert true - 4 * noise < result.variance.mean() < (1 + tolerance) * true + 4 * noise
    assert true + means.var() / (draws - 1) > 15 * true
    assert (result.variance >= 0).all()


def test_four_strata_overstate_by_their_differences() -> None:
    means, variances = strata(4)
    overstated = variances.sum() / 16 + means.var() / 3
    result = measured(4)
    noise = result.variance.std() / np.sqrt(TIMES)
    assert abs(result.variance.mean() - overstated) < 4 * noise
    assert result.variance.mean() > 2 * result.per_row.var()


@pytest.mark.parametrize("draws", [2, 3, 4, 5, 6, 7, 8, 9, 16, 64])
def test_every_stratum_counts_alike_and_a_curve_over_them_does_not(draws: int) -> None:
    """The quadratic form x' A x has mean trace(A diag(v)) + m' A m, for any variances and means.

    So a unit diagonal makes it right where A m = 0, and A without negative eigenvalues never too
    small.
    """
    x = np.arange(draws) - 1.0
    degree = 2 if draws >= 8 else 1 if draws >= 5 else 0
    curves = np.stack([3 + 0 * x, 3 - 2 * x, 3 - 2 * x + x**2])
    np.testing.assert_allclose(stratified_variance(curves)[: degree + 1], 0, atol=1e-20)
    unit = np.eye(draws)
    np.testing.assert_allclose(stratified_variance(unit), 1 / draws**2, rtol=1e-9)
    pairs = stratified_variance((unit[:, None] + unit).reshape(-1, draws)).reshape(draws, draws)
    form = (pairs * draws**2 - 2) / 2
    np.fill_diagonal(form, 1)
    assert np.linalg.eigvalsh(form).min() > -1e-9


def test_a_single_stratum_says_nothing() -> None:
    assert np.isposinf(stratified_variance(np.ones((3, 1)))).all()
