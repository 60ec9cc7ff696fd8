"""The likelihood of a causal model: exact, and the same number that the ARM estimator trains on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import MASK, PROMPT, RESPONSE, make_rows, repeated, tiny_model

from raymdm.diffusion import (
    Rows,
    bound,
    choice_nats,
    make_estimator,
    nelbo,
    perplexity_bound,
)
from raymdm.diffusion.likelihood import autoregressive_nll, shared_masks
from raymdm.models import Backbone

PAIRS = [(PROMPT, RESPONSE), ((2,), (1, 4, 2, 8, 0, 5)), ((0, 3, 3), (8,)), ((), (7, 8))]


@pytest.fixture(scope="module")
def model() -> Backbone:
    return tiny_model(causal=True)


def surprise(model: Backbone, row: Rows) -> torch.Tensor:
    """Sum over the response's tokens of -log p given all before it, from full logits, one row."""
    log_p = model(row.input_ids, row.attention_mask)[0].log_softmax(-1)
    chosen = log_p.gather(-1, row.input_ids[0][:, None])[:, 0]
    return -chosen[row.eligible[0]].sum()


def test_it_is_the_sum_of_the_tokens_log_probabilities(model: Backbone):
    result = autoregressive_nll(model, make_rows(PAIRS))
    wanted = [surprise(model, make_rows([pair])).item() for pair in PAIRS]
    np.testing.assert_allclose(result.per_row, wanted, rtol=1e-10)
    assert result.variance.tolist() == [0.0] * 4
    assert result.tokens.tolist() == [4, 6, 1, 2]
    assert result.per_row.dtype == result.variance.dtype == np.float64


def test_the_probabilities_of_all_responses_of_a_length_sum_to_one(model: Backbone):
    """A likelihood, not a score: no token is counted twice or left out."""
    responses = [(a, b) for a in range(12) for b in range(12)]
    result = autoregressive_nll(model, make_rows([(PROMPT, response) for response in responses]))
    assert np.exp(-result.per_row).sum() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("size", [1, 3, 256])
def test_the_nll_does_not_depend_on_the_batch_size(model: Backbone, size: int):
    result = autoregressive_nll(model, make_rows(PAIRS, width=13), batch_size=size)
    wanted = autoregressive_nll(model, make_rows(PAIRS))
    np.testing.assert_allclose(result.per_row, wanted.per_row, rtol=1e-9)


@pytest.mark.parametrize("normalize", ["sample", "token"])
def test_arm_trains_on_it_per_token(model: Backbone, normalize: str):
    estimator = replace(make_estimator("arm"), normalize=normalize)
    rows = make_rows(PAIRS)
    t = estimator.draw_time(0, 0, len(rows))
    losses = estimator.row_losses(model, MASK, rows, t, estimator.draw_noise(0, 0, rows))
    nats = torch.stack([surprise(model, make_rows([pair])) for pair in PAIRS])
    lengths = rows.response_lengths if normalize == "sample" else torch.ones(4)
    torch.testing.assert_close(losses, nats / lengths, rtol=1e-9, atol=0)
    assert (estimator.weights(rows, t) == 1).all()
    parameters = list(model.parameters())
    one, other = (
        torch.autograd.grad(values.sum(), parameters) for values in (losses, nats / lengths)
    )
    for mine, wanted in zip(one, other, strict=True):
        assert wanted.abs().max() > 0
        torch.testing.assert_close(mine, wanted, rtol=1e-7, atol=1e-10)


def test_the_bound_of_a_model_is_that_of_its_kind(model: Backbone):
    rows = make_rows(PAIRS)
    causal = bound(model, MASK, rows, causal=True, batch_size=2)
    np.testing.assert_allclose(causal.per_row, autoregressive_nll(model, rows).per_row, rtol=1e-9)
    settings = {"exact_up_to": 1, "draws": 3, "batch_size": 5}
    masked = bound(tiny_model(), MASK, rows, causal=False, **settings)
    wanted = nelbo(tiny_model(), MASK, rows, **settings)
    for name in ("per_row", "variance", "tokens"):
        assert (getattr(masked, name) == getattr(wanted, name)).all()
    assert masked.variance.max() > 0


def test_no_gradient_of_the_likelihood_is_kept(model: Backbone):
    autoregressive_nll(model, make_rows(PAIRS))
    assert all(parameter.grad is None for parameter in model.parameters())


CHOICES = ((1, 4, 2, 8, 0, 5), (3, 4, 7, 7, 0, 1), (5, 6, 1, 1, 2), (0, 2))


def test_the_nats_of_a_causal_model_s_choices_are_exact(model: Backbone):
    rows = make_rows([(PROMPT, choice) for choice in CHOICES])
    result = choice_nats(model, MASK, rows, causal=True, batch_size=3)
    np.testing.assert_allclose(result.per_row, autoregressive_nll(model, rows).per_row, rtol=1e-9)
    assert (result.variance == 0).all()
    np.testing.assert_allclose(result.per_token * [6, 6, 5, 2], result.per_row, rtol=1e-12)


def test_short_choices_of_a_masked_model_are_summed_over_all_masks():
    rows = make_rows([(PROMPT, choice) for choice in CHOICES])
    result = choice_nats(tiny_model(), MASK, rows, causal=False, exact_up_to=6)
    wanted = nelbo(tiny_model(), MASK, rows, exact_up_to=6)
    np.testing.assert_allclose(result.per_row, wanted.per_row, rtol=1e-12)
    assert (result.variance == 0).all()


def test_choices_of_an_item_are_compared_under_the_same_masks():
    """Equal lengths have equal masks, and a longer one's start the shorter's; items differ."""
    six, five, other = shared_masks(6, 3, 8), shared_masks(5, 3, 8), shared_masks(6, 4, 8)
    counts = [len(mask) for mask in six]
    assert counts == sorted(counts)
    assert set(counts) == {1, 2, 3, 4, 5, 6}
    for longer, shorter in zip(six, five, strict=True):
        within = set(longer[longer < 5].tolist())
        assert within <= set(shorter.tolist()) or within >= set(shorter.tolist())
    assert any(a.tolist() != b.tolist() for a, b in zip(six, other, strict=True))
    rows = make_rows([(PROMPT, CHOICES[0])] * 2 + [(PROMPT, CHOICES[1])], [3, 4, 3])
    settings = {"causal": False, "exact_up_to": 2, "draws": 5}
    result = choice_nats(tiny_model(), MASK, rows, **settings)
    assert result.per_row[0] != pytest.approx(result.per_row[1], rel=1e-6)
    for index in range(3):  # neither the batch nor its size has a say
        alone = choice_nats(tiny_model(), MASK, rows.take([index]), batch_size=2, **settings)
        assert alone.per_row[0] == pytest.approx(result.per_row[index], rel=1e-9)
        assert alone.variance[0] == pytest.approx(result.variance[index], rel=1e-6)


def test_sampled_choices_are_unbiased_and_differ_with_less_noise_where_they_are_alike():
    times, model = 300, tiny_model()
    settings = {"causal": False, "exact_up_to": 2, "draws": 8}
    results = []
    for last in (5, 0, 1, 2, 3, 4):
        row = make_rows([(PROMPT, (*CHOICES[0][:5], last))])
        result = choice_nats(model, MASK, repeated(row, times), **settings)
        exact = nelbo(model, MASK, row, exact_up_to=6).per_row[0]
        assert abs(result.per_row.mean() - exact) < 4 * result.per_row.std() / np.sqrt(times)
        assert 0.85 < result.variance.mean() / result.per_row.var() < 1.5
        results.append(result.per_row)
    together = np.mean([(results[0] - other).var() for other in results[1:]])
    apart = np.mean([(results[0] - other[::-1]).var() for other in results[1:]])
    assert together < 0.75 * apart


def test_an_empty_choice_costs_nothing():
    rows = make_rows([(PROMPT, ()), (PROMPT, RESPONSE)])
    for causal in (True, False):
        result = choice_nats(tiny_model(causal=causal), MASK, rows, causal=causal)
        assert result.per_row[0] == result.per_token[0] == result.variance[0] == 0
        assert result.per_row[1] > 0


def test_the_perplexity_bound_is_the_exponential_with_the_delta_method_s_error():
    value, error = perplexity_bound(2.0, 0.01)
    assert value == pytest.approx(np.exp(2.0))
    assert error == pytest.approx((np.exp(2.01) - np.exp(1.99)) / 2, rel=1e-4)
    assert perplexity_bound(2.0, 0.0) == (value, 0.0)
    assert perplexity_bound(800.0, 0.0) == (np.inf, 0.0)
    assert perplexity_bound(800.0, 0.1) == (np.inf, np.inf)
