"""Every estimator has the expectation it claims: exactly, over all masks and all rates.

The expectation is taken of the code that trains (`Estimator.row_losses` and its time sampler); the
value it is held to comes from plain full logits of all 2^n masks.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny import (
    MASK,
    PROMPT,
    RESPONSE,
    expected_loss,
    fitted_density,
    gauss,
    make_rows,
    target,
    tiny_model,
)
from torch import Tensor

from raymdm.diffusion import Estimator, Rows, TimeDensity, make_estimator
from raymdm.diffusion.time import ImportanceTime, TimeDraw
from raymdm.models import Backbone

STEEP = TimeDensity(np.array([6.0, 1.0, 0.5, 0.25, 2.0]))
CASES = [
    ("standard", None),
    ("multisample2", None),
    ("mirror", None),
    ("ppots", fitted_density()),
    ("ppots", STEEP),
    ("ppots_mirror", fitted_density()),
    ("ppots_mirror", STEEP.mixed(0.3)),
]


def breaks(epsilon: float, density: TimeDensity | None) -> np.ndarray:
    """The uniforms between which t is a line, its weight constant and the law of masks smooth."""
    kink = (0.5 - epsilon) / (1 - epsilon)  # alpha = 1/2
    if density is None:
        return np.array([0.0, kink, 1.0])
    rates = np.linspace(0, 1, len(density.cells) + 1)
    return density.cdf(np.sort(np.append(rates, kink)))


def expectation(
    model: Backbone,
    estimator: Estimator,
    row: Rows,
    density: TimeDensity | None = None,
    order: int = 4,
) -> Tensor:
    """E over u of weight(u) · E[l | t(u)], exact: both factors are polynomials between breaks."""
    edges = breaks(estimator.epsilon, density)
    total = torch.zeros((), dtype=torch.float64)
    for low, high in pairwise(edges):
        uniforms, shares = gauss(low, high, order)
        draw = estimator.time(uniforms)
        for t, weight, share in zip(draw.t, draw.weight, shares, strict=True):
            total = total + share * weight * expected_loss(model, estimator, row, t)
    return total


@pytest.mark.parametrize(("preset", "density"), CASES)
def test_value_and_gradient_are_unbiased(preset: str, density: TimeDensity | None):
    model, row = tiny_model(), make_rows([(PROMPT, RESPONSE)])
    estimator = make_estimator(preset, density)
    order = 2 if preset == "multisample2" else 4  # g has degree 3: two nodes are exact, and quick
    got, wanted = expectation(model, estimator, row, density, order), target(model, row)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-9)
    parameters = list(model.parameters())
    pairs = zip(
        torch.autograd.grad(got, parameters), torch.autograd.grad(wanted, parameters), strict=True
    )
    for have, want in pairs:
        torch.testing.assert_close(have, want, rtol=1e-6, atol=1e-8)


def test_the_target_knows_its_epsilon():
    model, row = tiny_model(), make_rows([(PROMPT, RESPONSE)])
    coarse = replace(make_estimator("mirror"), epsilon=0.2)
    got = expectation(model, coarse, row)
    assert got.item() == pytest.approx(target(model, row, 0.2).item(), rel=1e-9)
    assert abs(got.item() / target(model, row).item() - 1) > 1e-3


@pytest.mark.parametrize(
    ("preset", "density"), [("standard", None), ("ppots_mirror", fitted_density())]
)
def test_token_normalisation_divides_the_sum_of_the_batch_by_its_response_tokens(
    preset: str, density: TimeDensity | None
):
    model = tiny_model()
    rows = [make_rows([(PROMPT, RESPONSE)]), make_rows([((2,), (5, 0))])]
    estimator = replace(make_estimator(preset, density), normalize="token")
    with torch.no_grad():
        sums = [expectation(model, estimator, row, density) for row in rows]
        counts = [estimator.row_denominators(row).item() for row in rows]
        wanted = sum(n * target(model, row) for n, row in zip((4, 2), rows, strict=True)) / 6
    assert counts == [4, 2]
    assert sum(sums).item() / sum(counts) == pytest.approx(wanted.item(), rel=1e-9)


def test_a_row_with_an_empty_mask_is_worth_nothing_and_keeps_its_place_in_the_batch():
    model = tiny_model()
    rows = make_rows([(PROMPT, RESPONSE), ((2,), (5, 0))])
    noise = torch.full((1, 2, 6), 0.9, dtype=torch.float64)
    noise[0, 0] = 0.0
    estimator = make_estimator("standard")
    losses = estimator.row_losses(model, MASK, rows, np.array([0.5, 0.5]), noise)
    alone = estimator.row_losses(model, MASK, rows.slice(0, 1), np.array([0.5]), noise[:, :1])
    assert losses[1] == 0
    assert losses[0].item() == pytest.approx(alone.item(), rel=1e-12)
    assert estimator.row_denominators(rows).tolist() == [1, 1]
    by_token = replace(estimator, normalize="token")
    assert by_token.row_denominators(rows).tolist() == [4, 2]


def test_a_batch_of_empty_masks_still_reaches_every_parameter():
    """A worker whose rows all came out empty must take part in the step like the others."""
    model, rows = tiny_model(), make_rows([(PROMPT, RESPONSE)])
    noise = torch.ones(1, 1, 6, dtype=torch.float64)
    loss = make_estimator("standard").row_losses(model, MASK, rows, np.array([0.1]), noise).sum()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert loss == 0
    assert all((gradient == 0).all() for gradient in gradients)


class Weightless(ImportanceTime):
    """Importance sampling by somebody who forgot the weight."""

    def __call__(self, uniforms: np.ndarray) -> TimeDraw:
        return super().__call__(uniforms)._replace(weight=np.ones_like(uniforms))


@pytest.mark.parametrize("density", [fitted_density(), STEEP])
def test_an_importance_weight_that_is_dropped_would_show(density: TimeDensity):
    model, row = tiny_model(), make_rows([(PROMPT, RESPONSE)])
    forgetful = replace(make_estimator("ppots", density), time=Weightless(density))
    with torch.no_grad():
        got = expectation(model, forgetful, row, density)
        assert abs(got / target(model, row) - 1) > 1e-3


def test_rates_and_weights_of_a_step_belong_to_the_slots_of_the_whole_batch():
    density = fitted_density()
    draw = make_estimator("ppots", density).draw_time(seed=1, step=7, batch_size=8)
    plain = make_estimator("standard").draw_time(seed=1, step=7, batch_size=8)
    np.testing.assert_allclose(density.cdf(draw.t), plain.t, atol=1e-12)
    np.testing.assert_array_equal(draw.weight, 1 / density.pdf(draw.t))
    assert (plain.weight == 1).all()
    longer = make_estimator("standard").draw_time(seed=1, step=7, batch_size=16)
    np.testing.assert_array_equal(longer.t[:8], plain.t)
