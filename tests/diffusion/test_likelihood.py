"""The likelihood of a causal model: exact, and the same number that the ARM estimator trains on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import MASK, PROMPT, RESPONSE, make_rows, tiny_model

from raymdm.diffusion import Rows, bound, make_estimator, nelbo
from raymdm.diffusion.likelihood import autoregressive_nll
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
