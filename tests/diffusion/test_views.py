"""Views, forwards and rows: what a loss may depend on, and what it may not."""

import numpy as np
import pytest
import torch
from tiny import MASK, PROMPT, RESPONSE, make_rows, tiny_model
from torch import Tensor

from raymdm.diffusion import make_estimator
from raymdm.diffusion.estimator import masked_cross_entropy
from raymdm.diffusion.masking import IndependentMasker
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
    masks = estimator.masks(rows, np.array([t]), estimator.draw_noise(0, 0, rows))
    alpha = float(estimator.mask_probability(np.array(t)))
    first, second = masks[:, 0, 1:]
    both, neither = (first & second).sum(), (~first & ~second).sum()
    assert (both if alpha <= 0.5 else neither) == 0
    for view in (first, second):
        assert view.double().mean().item() == pytest.approx(alpha, abs=4 * 0.5 / 20)


def test_mirror_is_made_of_replica_zero_only():
    mirror, twice = make_estimator("mirror"), make_estimator("multisample2")
    rows = make_rows(PAIRS)
    t = np.array([0.4, 0.5, 0.6])
    assert mirror.masker.views == twice.masker.views == 2
    shared = mirror.draw_noise(3, 1, rows)
    assert shared.shape[0] == 1
    first, second = mirror.masks(rows, t, shared)
    other_first, other_second = twice.masks(rows, t, twice.draw_noise(3, 1, rows))
    assert (first == other_first).all()
    assert (second != other_second).any()
    reflected = IndependentMasker().masks(1 - shared, torch.from_numpy(mirror.mask_probability(t)))
    assert (second == (reflected[0] & rows.eligible)).all()


@pytest.mark.parametrize("name", ["standard", "multisample2", "mirror"])
def test_only_response_tokens_are_masked(name: str):
    estimator = make_estimator(name)
    rows = make_rows(PAIRS)
    masks = estimator.masks(rows, np.ones(3), estimator.draw_noise(0, 0, rows))
    assert (masks == rows.eligible).all()


def test_the_mask_probability_runs_from_epsilon_to_one():
    alpha = make_estimator("standard").mask_probability(np.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(alpha, [1e-3, 0.5005, 1.0], rtol=1e-12)


@pytest.mark.parametrize("name", ["mirror", "multisample2"])
def test_one_forward_of_both_views_equals_two_forwards(name: str):
    model, estimator, rows = tiny_model(), make_estimator(name), make_rows(PAIRS)
    t = np.array([0.35, 0.5, 0.9])
    noise = estimator.draw_noise(5, 0, rows)
    together = estimator.row_losses(model, MASK, rows, t, noise)
    views = [
        masked_cross_entropy(model, rows.input_ids, rows.attention_mask, mask, MASK)
        for mask in estimator.masks(rows, t, noise)
    ]
    scale = torch.from_numpy(estimator.mask_probability(t)) * rows.response_lengths
    apart = (views[0] + views[1]) / 2 / scale
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


@pytest.mark.parametrize("name", ["standard", "mirror"])
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
