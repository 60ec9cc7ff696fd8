"""Views, forwards and rows: what a loss may depend on, and what it may not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import MASK, PROMPT, RESPONSE, make_rows, tiny_model
from torch import Tensor

from raymdm.diffusion import make_estimator
from raymdm.diffusion.cross_entropy import cross_entropy_sums, masked_cross_entropy
from raymdm.diffusion.law import RateLaw
from raymdm.models import Backbone

PAIRS = [(PROMPT, RESPONSE), ((2,), (5, 0, 5)), ((6, 6, 1), (11, 4))]


def gradients(value: Tensor, model: Backbone) -> list[Tensor]:
    return list(torch.autograd.grad(value, list(model.parameters()), retain_graph=True))


def assert_same_gradients(one: Tensor, other: Tensor, model: Backbone):
    for have, want in zip(gradients(one, model), gradients(other, model), strict=True):
        torch.testing.assert_close(have, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("t", [0.05, 0.3, 0.499, 0.55, 0.8, 1.0])
def test_the_views_of_mirror_never_overlap_up_to_one_half_and_cover_everything_above(t: float):
    estimator = make_estimator("mirror")
    rows = make_rows([((0,), (1,) * 400)])
    masks = estimator.views(rows, np.array([t]), estimator.draw_noise(0, 0, rows)).hidden
    alpha = (1 - 1e-3) * t + 1e-3
    first, second = masks[:, 0, 1:]
    both, neither = (first & second).sum(), (~first & ~second).sum()
    assert (both if alpha <= 0.5 else neither) == 0
    for view in (first, second):
        assert view.double().mean().item() == pytest.approx(alpha, abs=4 * 0.5 / 20)


def test_mirror_is_made_of_replica_zero_only():
    mirror, twice = make_estimator("mirror"), make_estimator("multisample2")
    rows = make_rows(PAIRS)
    t = np.array([0.4, 0.5, 0.6])
    assert mirror.law.views == twice.law.views == 2
    shared = mirror.draw_noise(3, 1, rows)
    assert shared.shape[0] == 1
    first, second = mirror.views(rows, t, shared).hidden
    other_first, other_second = twice.views(rows, t, twice.draw_noise(3, 1, rows)).hidden
    assert (first == other_first).all()
    assert (second != other_second).any()
    (reflected,) = make_estimator("standard").views(rows, t, 1 - shared).hidden
    assert (second == reflected).all()


@pytest.mark.parametrize("name", ["standard", "multisample2", "mirror", "rotation4", "count"])
def test_all_response_tokens_are_hidden_at_rate_one_and_no_others(name: str):
    estimator = make_estimator(name)
    rows = make_rows(PAIRS)
    views = estimator.views(rows, np.ones(3), estimator.draw_noise(0, 0, rows))
    assert (views.hidden == rows.eligible).all()
    assert (views.predicted == rows.eligible).all()


def test_syntax_tokens_are_masked_predicted_and_counted_where_the_composition_says_so():
    rows = make_rows(PAIRS)
    syntax = torch.zeros_like(rows.eligible)
    syntax[0, 0] = syntax[2, 1] = True
    rows = replace(rows, syntax=syntax)
    plain, estimator = make_estimator("standard"), make_estimator("syrm")
    noise = estimator.draw_noise(0, 0, rows)
    assert (plain.views(rows, np.ones(3), noise).hidden == rows.eligible).all()
    assert (estimator.views(rows, np.ones(3), noise).hidden == rows.eligible | syntax).all()
    assert plain.lengths(rows).tolist() == [4, 3, 2]
    assert estimator.lengths(rows).tolist() == [5, 3, 3]


def test_an_autoregressive_composition_hides_nothing_and_predicts_the_response():
    estimator, rows = make_estimator("arm"), make_rows(PAIRS)
    views = estimator.views(rows, np.full(3, 0.3), estimator.draw_noise(0, 0, rows))
    assert not views.hidden.any()
    assert (views.predicted[0] == rows.eligible).all()
    assert (views.coefficients == 1).all()


def test_the_mask_probability_runs_from_epsilon_to_one():
    law = make_estimator("standard").law
    assert isinstance(law, RateLaw)
    alpha = law.mask_probability(np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(alpha, [1e-3, 0.5005, 1.0], rtol=1e-12)


@pytest.mark.parametrize("name", ["mirror", "multisample2", "complement"])
def test_one_forward_of_both_views_equals_two_forwards(name: str):
    model, estimator, rows = tiny_model(), make_estimator(name), make_rows(PAIRS)
    t = np.array([0.35, 0.5, 0.9])
    noise = estimator.draw_noise(5, 0, rows)
    together = estimator.row_losses(model, MASK, rows, t, noise)
    views = [
        masked_cross_entropy(model, rows.input_ids, rows.attention_mask, mask, MASK)
        for mask in estimator.views(rows, t, noise).hidden
    ]
    rates = torch.from_numpy(np.stack([t, 1 - t if name == "complement" else t]))
    scale = ((1 - 1e-3) * rates + 1e-3) * rows.response_lengths
    apart = (views[0] / scale[0] + views[1] / scale[1]) / 2
    torch.testing.assert_close(together, apart, rtol=1e-7, atol=1e-9)
    assert_same_gradients(together.sum(), apart.sum(), model)


def test_logits_of_selected_positions_equal_full_logits_indexed():
    model, rows = tiny_model(), make_rows(PAIRS)
    select = rows.eligible & (torch.arange(6) % 2 == 0)
    gathered = model(rows.input_ids, rows.attention_mask, select=select)
    full = model(rows.input_ids, rows.attention_mask)[select]
    torch.testing.assert_close(gathered, full, rtol=1e-9, atol=1e-11)
    assert_same_gradients(gathered.square().sum(), full.square().sum(), model)


def test_masked_cross_entropy_is_the_sum_over_masked_positions_of_each_row():
    model, rows = tiny_model(), make_rows(PAIRS)
    masked = rows.eligible.clone()
    masked[1] = False
    sums = masked_cross_entropy(model, rows.input_ids, rows.attention_mask, masked, MASK)
    log_p = model(rows.input_ids.masked_fill(masked, MASK), rows.attention_mask).log_softmax(-1)
    surprise = -log_p.gather(-1, rows.input_ids[..., None])[..., 0]
    torch.testing.assert_close(sums, (surprise * masked).sum(-1), rtol=1e-7, atol=1e-9)
    assert sums[1] == 0


def test_coefficients_multiply_each_cross_entropy():
    model, rows = tiny_model(), make_rows(PAIRS)
    ids, real, predicted = rows.input_ids, rows.attention_mask, rows.eligible
    ones = cross_entropy_sums(model, ids, real, ids, predicted)
    coefficients = torch.arange(18.0).view(3, 6)
    weighted = cross_entropy_sums(model, ids, real, ids, predicted, coefficients)
    log_p = model(ids, real).log_softmax(-1)
    surprise = -log_p.gather(-1, ids[..., None])[..., 0] * predicted
    torch.testing.assert_close(ones, surprise.sum(-1), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(weighted, (coefficients * surprise).sum(-1), rtol=1e-7, atol=1e-9)


def test_row_losses_are_the_mean_of_the_views():
    model, estimator, rows = tiny_model(), make_estimator("rotation4"), make_rows(PAIRS)
    t, noise = np.array([0.35, 0.5, 0.9]), estimator.draw_noise(5, 0, rows)
    each = estimator.view_losses(model, MASK, rows, t, noise)
    assert each.shape == (4, 3)
    assert (each[0] != each[1]).any()
    torch.testing.assert_close(estimator.row_losses(model, MASK, rows, t, noise), each.mean(0))


@pytest.mark.parametrize("name", ["standard", "mirror", "rotation4", "count"])
def test_a_rows_loss_does_not_depend_on_padding_or_on_the_other_rows(name: str):
    model, estimator = tiny_model(), make_estimator(name)
    samples, t = [17, 4, 90], np.array([0.6, 0.7, 0.8])
    batch = make_rows(PAIRS, samples)
    together = estimator.row_losses(model, MASK, batch, t, estimator.draw_noise(2, 1, batch))
    for index, pair in enumerate(PAIRS):
        alone = make_rows([pair], samples[index : index + 1], width=11)
        noise = estimator.draw_noise(2, 1, alone)
        loss = estimator.row_losses(model, MASK, alone, t[index : index + 1], noise)
        assert loss.item() == pytest.approx(together[index].item(), rel=1e-7)
        assert loss.item() > 0


def test_slices_of_rows_are_cut_to_their_longest():
    part = make_rows(PAIRS, [5, 6, 7]).slice(1, 3)
    whole = make_rows(PAIRS[1:], [6, 7])
    assert part.samples == whole.samples == [6, 7]
    for name in ("input_ids", "attention_mask", "eligible"):
        torch.testing.assert_close(getattr(part, name), getattr(whole, name))
    assert part.response_lengths.tolist() == [3, 2]


def test_marks_are_sliced_with_their_rows():
    rows = make_rows(PAIRS)
    marks = torch.arange(18).view(3, 6) % 2 == 0
    part = replace(rows, delimiters=marks, syntax=~marks).slice(1, 3)
    assert part.delimiters is not None
    assert part.syntax is not None
    assert (part.delimiters == marks[1:, :5]).all()
    assert (part.syntax == ~marks[1:, :5]).all()


def test_rows_may_be_taken_in_any_order():
    rows = make_rows(PAIRS, [5, 6, 7])
    part = replace(rows, syntax=~rows.eligible).take([2, 0])
    whole = make_rows([PAIRS[2], PAIRS[0]], [7, 5])
    assert part.samples == whole.samples
    for name in ("input_ids", "attention_mask", "eligible"):
        torch.testing.assert_close(getattr(part, name), getattr(whole, name))
    assert part.syntax is not None
    assert (part.syntax == ~whole.eligible).all()
    assert part.delimiters is None
