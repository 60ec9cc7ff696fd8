"""Every shipped estimator has the expectation it claims: exactly, over all masks and all rates.

The expectation is taken of the code that trains (`Estimator.row_losses`, its weights and its time
sampler); the value it is held to comes from plain full logits of all 2^n masks.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny import (
    MASK,
    all_masks,
    certain_model,
    cross_entropy_sums,
    expected_loss,
    fitted_density,
    gauss,
    make_rows,
    mask_law,
    target,
    tiny_model,
)
from torch import Tensor

from raymdm.config import config_files
from raymdm.config.estimator import EstimatorSection
from raymdm.diffusion import Estimator, Rows, TimeDensity, make_estimator
from raymdm.diffusion.compose import estimator_section
from raymdm.diffusion.law import CountLaw, RateLaw
from raymdm.diffusion.masking import ComplementMasker, IndependentMasker
from raymdm.diffusion.time import ClippedTime, ImportanceTime, UniformTime
from raymdm.models import Backbone

PRESETS = [path.stem for path in config_files() if path.parent.name == "estimators"]
STEEP = TimeDensity(np.array([6.0, 1.0, 0.5, 0.25, 2.0]))
PROMPT, RESPONSE = (3, 7), (1, 4, 8)


def example(section: EstimatorSection) -> Rows:
    """One row of two prompt and three response tokens; the second of each is marked."""
    rows = make_rows([(PROMPT, RESPONSE)])
    delimiters, syntax = torch.zeros_like(rows.eligible), torch.zeros_like(rows.eligible)
    delimiters[0, 3] = syntax[0, 1] = True
    return replace(rows, delimiters=delimiters, syntax=syntax)


def breaks(estimator: Estimator, n: int) -> np.ndarray:
    """The uniforms between which t is a line, its weight constant and the law of masks smooth."""
    rates = [0.0, 1.0]
    if isinstance(estimator.law, CountLaw):
        rates += [*(np.arange(1, n) / n)]
    elif isinstance(estimator.law, RateLaw):
        e, views = estimator.law.epsilon, estimator.law.views
        kinks = [*(np.arange(1, views) / views)]
        if estimator.law.delimiter_rates == "raised":
            kinks.append(1 - estimator.law.delta)
        rates += [(kink - e) / (1 - e) for kink in kinks]
        if isinstance(estimator.law.masker, ComplementMasker):
            rates += [1 - rate for rate in rates]
    if isinstance(estimator.time, ClippedTime):
        low, high = estimator.time.low, estimator.time.high
        inside = [(rate - low) / (high - low) for rate in rates if low < rate < high]
        return np.unique([0.0, 1.0, *inside])
    if isinstance(estimator.time, ImportanceTime):
        cells = len(estimator.time.density.cells)
        return np.unique(
            estimator.time.density.cdf(np.array([*rates, *np.linspace(0, 1, cells + 1)]))
        )
    return np.unique(rates)


def expectation(model: Backbone, estimator: Estimator, row: Rows, order: int = 3) -> Tensor:
    """E over u of weight(u) · E[l | t(u)], exact: both factors are polynomials between breaks."""
    total = torch.zeros((), dtype=torch.float64)
    for low, high in pairwise(breaks(estimator, int(estimator.lengths(row)[0]))):
        if high - low < 1e-12:
            continue
        uniforms, shares = gauss(low, high, order)
        for t, share in zip(estimator.time(uniforms), shares, strict=True):
            weight = float(estimator.weights(row, np.array([t]))[0])
            total = total + share * weight * expected_loss(model, estimator, row, t)
    return total


def claimed(model: Backbone, section: EstimatorSection, row: Rows) -> Tensor:
    """What the documentation of a composition says that its expectation is."""
    if section.objective == "autoregressive":
        log_p = model(row.input_ids, row.attention_mask)[0].log_softmax(-1)
        nll = -log_p.gather(-1, row.input_ids[0][:, None])[:, 0]
        return nll[row.eligible[0]].mean()
    if section.eligible == "response_and_syntax":
        assert row.syntax is not None
        return target(model, replace(row, eligible=row.eligible | row.syntax), section.epsilon)
    if section.masker.kind == "count":
        return target(model, row, 0.0)
    if section.time.sampler == "clipped":
        return clipped_target(model, row, *section.time.bounds)
    if section.delimiters.rates == "raised":
        return raised_target(model, row, section.delimiters.delta, section.epsilon)
    return target(model, row, section.epsilon)


def clipped_target(model: Backbone, row: Rows, low: float, high: float) -> Tensor:
    """The mean of g over [low, high]."""
    sums, n = cross_entropy_sums(model, row), row.eligible.sum().double()
    total = torch.zeros((), dtype=torch.float64)
    for t, share in zip(*gauss(low, high, 8), strict=True):
        alpha = (1 - 1e-3) * t + 1e-3
        total = total + share * (mask_law(row, alpha) * sums).sum() / (alpha * n)
    return total / (high - low)


def raised_target(model: Backbone, row: Rows, delta: float, epsilon: float) -> Tensor:
    """Each cross-entropy over its own rate, in the contexts that the raised rates make."""
    assert row.delimiters is not None
    masks = all_masks(row)
    each = []
    for mask in masks:
        ids = torch.where(mask, MASK, row.input_ids[0])
        log_p = model(ids[None], row.attention_mask)[0].log_softmax(-1)
        each.append(-log_p.gather(-1, row.input_ids[0][:, None])[:, 0] * mask)
    losses = torch.stack(each)
    edge = (1 - delta - epsilon) / (1 - epsilon)
    total = torch.zeros((), dtype=torch.float64)
    for low, high in ((0.0, edge), (edge, 1.0)):
        for t, share in zip(*gauss(low, high, 12), strict=True):
            alpha = (1 - epsilon) * t + epsilon
            q = torch.where(row.delimiters[0], min(alpha + delta, 1.0), alpha)
            law = torch.where(masks, q, 1 - q)[:, row.eligible[0]].prod(-1)
            total = total + share * (law[:, None] * losses / q).sum() / row.eligible.sum()
    return total


def density_of(section: EstimatorSection) -> TimeDensity | None:
    """A density in few cells, to be integrated cell by cell; a preset's own has a thousand."""
    return fitted_density() if section.time.sampler == "importance" else None


def model_of(section: EstimatorSection) -> Backbone:
    return tiny_model(causal=section.objective == "autoregressive")


def assert_same_gradient(got: Tensor, wanted: Tensor, model: Backbone):
    parameters = list(model.parameters())
    have = torch.autograd.grad(got, parameters, retain_graph=True)
    want = torch.autograd.grad(wanted, parameters, retain_graph=True)
    for one, other in zip(have, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("preset", PRESETS)
def test_value_and_gradient_of_every_preset_are_what_it_claims(preset: str):
    section = estimator_section(preset)
    model, row = model_of(section), example(section)
    estimator = make_estimator(preset, density_of(section))
    # Under raised rates 1/q is no polynomial of t; elsewhere the nodes are exact.
    order = 8 if section.delimiters.rates == "raised" else 2 if estimator.law.replicas > 1 else 3
    got, wanted = expectation(model, estimator, row, order), claimed(model, section, row)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-7)
    assert_same_gradient(got, wanted, model)


def test_the_paper_isad_is_biased_and_the_exact_one_is_not():
    section = estimator_section("isad")
    model, row = tiny_model(), example(section)
    plain = target(model, row).item()
    assert abs(raised_target(model, row, 0.2, 1e-3).item() / plain - 1) > 1e-4
    exact = expectation(model, make_estimator("isad_exact"), row)
    assert exact.item() == pytest.approx(plain, rel=1e-9)


@pytest.mark.parametrize("kind", ["mirror", "rotation", "complement", "count", "independent"])
@pytest.mark.parametrize("density", [STEEP, STEEP.mixed(0.3)])
def test_importance_composes_with_every_masker(kind: str, density: TimeDensity):
    views = {"rotation": 3, "count": 1, "independent": 1}.get(kind, 2)
    section = EstimatorSection.model_validate(
        {"time": {"sampler": "importance"}, "masker": {"kind": kind, "views": views}}
    )
    model, row = tiny_model(), example(section)
    with torch.no_grad():
        got = expectation(model, make_estimator(section, density), row)
        wanted = claimed(model, section, row)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-9)


@pytest.mark.parametrize("kind", ["mirror", "rotation", "complement"])
def test_raised_delimiters_stay_exact_in_every_view(kind: str):
    section = EstimatorSection.model_validate(
        {"masker": {"kind": kind, "views": 2}, "delimiters": {"rates": "exact", "delta": 0.3}}
    )
    model, row = tiny_model(), example(section)
    with torch.no_grad():
        got = expectation(model, make_estimator(section), row)
        assert got.item() == pytest.approx(target(model, row).item(), rel=1e-9)


def test_the_likelihood_ratio_of_raised_delimiters_is_bounded():
    """Its second moment is at most 1/(1 - delta) for each delimiter: coefficients never explode."""
    law = RateLaw(IndependentMasker(), 0.0, "exact", delta=0.2)
    rows = example(EstimatorSection())
    for t in (0.01, 0.4, 0.99):
        raised = t + 0.2 * (1 - t)
        values, second = [], 0.0
        for u, share in ((raised / 2, raised), ((1 + raised) / 2, 1 - raised)):
            noise = torch.full((1, *rows.eligible.shape), 0.0, dtype=torch.float64)
            noise[0, 0, 3] = u
            views = law.draw(np.array([t]), noise, rows.eligible, rows.delimiters)
            ratio = float(views.coefficients[0, 0, 2] * t)
            values.append(share * ratio)
            second += share * ratio**2
        assert sum(values) == pytest.approx(1.0, rel=1e-9)
        assert second <= 1 / (1 - 0.2) + 1e-9


def test_the_target_knows_its_epsilon():
    model, row = tiny_model(), example(EstimatorSection())
    coarse = make_estimator({"epsilon": 0.2, "masker": {"kind": "mirror", "views": 2}})
    got = expectation(model, coarse, row)
    assert got.item() == pytest.approx(target(model, row, 0.2).item(), rel=1e-9)
    assert abs(got.item() / target(model, row).item() - 1) > 1e-3


@pytest.mark.parametrize("preset", ["standard", "ppots_mirror", "count", "recommended"])
def test_token_normalisation_divides_the_sum_of_the_batch_by_its_response_tokens(preset: str):
    model, section = tiny_model(), estimator_section(preset)
    rows = [make_rows([(PROMPT, RESPONSE)]), make_rows([((2,), (5, 0))])]
    estimator = replace(make_estimator(preset, density_of(section)), normalize="token")
    with torch.no_grad():
        sums = [expectation(model, estimator, row) for row in rows]
        counts = [estimator.row_denominators(row).item() for row in rows]
        wanted = [n * claimed(model, section, row) for n, row in zip((3, 2), rows, strict=True)]
    assert counts == [3, 2]
    assert (sum(sums) / 5).item() == pytest.approx((sum(wanted) / 5).item(), rel=1e-9)


def test_a_row_with_an_empty_mask_is_worth_nothing_and_keeps_its_place_in_the_batch():
    model = tiny_model()
    rows = make_rows([(PROMPT, RESPONSE), ((2,), (5, 0))])
    noise = torch.full((1, 2, 5), 0.9, dtype=torch.float64)
    noise[0, 0] = 0.0
    estimator = make_estimator("standard")
    losses = estimator.row_losses(model, MASK, rows, np.array([0.5, 0.5]), noise)
    alone = estimator.row_losses(model, MASK, rows.slice(0, 1), np.array([0.5]), noise[:, :1])
    assert losses[1] == 0
    assert losses[0].item() == pytest.approx(alone.item(), rel=1e-12)
    assert estimator.row_denominators(rows).tolist() == [1, 1]
    by_token = replace(estimator, normalize="token")
    assert by_token.row_denominators(rows).tolist() == [3, 2]


def test_a_batch_of_empty_masks_still_reaches_every_parameter():
    """A worker whose rows all came out empty must take part in the step like the others."""
    model, rows = tiny_model(), make_rows([(PROMPT, RESPONSE)])
    noise = torch.ones(1, 1, 5, dtype=torch.float64)
    loss = make_estimator("standard").row_losses(model, MASK, rows, np.array([0.1]), noise).sum()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert loss == 0
    assert all((gradient == 0).all() for gradient in gradients)


def test_an_exact_count_never_leaves_a_mask_empty():
    estimator, rows = make_estimator("count"), make_rows([(PROMPT, RESPONSE), ((2,), (5, 0))])
    noise = estimator.draw_noise(0, 0, rows)
    for t, wanted in ((0.0, [1, 1]), (0.4, [2, 1]), (0.5, [2, 2]), (1.0, [3, 2])):
        views = estimator.views(rows, np.full(2, t), noise)
        assert views.hidden[0].sum(-1).tolist() == wanted
        assert (views.hidden[0] <= rows.eligible).all()


def test_an_exact_counts_loss_is_the_mean_cross_entropy_of_the_masked():
    model, rows = certain_model(), make_rows([(PROMPT, RESPONSE), ((2,), (5, 0))])
    estimator = make_estimator("count")
    noise = estimator.draw_noise(0, 0, rows)
    for t in (0.0, 0.4, 1.0):
        losses = estimator.row_losses(model, MASK, rows, np.full(2, t), noise)
        np.testing.assert_allclose(losses.detach().numpy(), np.log(12), rtol=1e-7)


class Weightless(ImportanceTime):
    """Importance sampling by somebody who forgot the weight."""

    def weight(self, t: np.ndarray) -> np.ndarray:
        return np.ones_like(t)

    def mass(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        return high - low


@pytest.mark.parametrize("kind", ["independent", "count"])
@pytest.mark.parametrize("density", [fitted_density(), STEEP])
def test_an_importance_weight_that_is_dropped_would_show(kind: str, density: TimeDensity):
    section = EstimatorSection.model_validate(
        {"time": {"sampler": "importance"}, "masker": {"kind": kind}}
    )
    model, row = tiny_model(), example(section)
    forgetful = replace(make_estimator(section, density), time=Weightless(density))
    with torch.no_grad():
        got = expectation(model, forgetful, row)
        assert abs(got / claimed(model, section, row) - 1) > 1e-3


def test_rates_of_a_step_belong_to_the_slots_of_the_whole_batch():
    density = fitted_density()
    drawn = make_estimator("ppots", density).draw_time(seed=1, step=7, batch_size=8)
    plain = make_estimator("standard").draw_time(seed=1, step=7, batch_size=8)
    np.testing.assert_allclose(density.cdf(drawn), plain, atol=1e-12)
    longer = make_estimator("standard").draw_time(seed=1, step=7, batch_size=16)
    np.testing.assert_array_equal(longer[:8], plain)
    assert isinstance(make_estimator("standard").time, UniformTime)
