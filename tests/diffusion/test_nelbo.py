"""The NELBO that runs are compared by: exact on short responses, unbiased on longer ones."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from tiny import (
    FIXTURES,
    MASK,
    PROMPT,
    RESPONSE,
    all_masks,
    certain_model,
    cross_entropy_sums,
    make_rows,
    repeated,
    tiny_model,
)

from raymdm.diffusion import Rows, choice_nats, nelbo
from raymdm.diffusion.cross_entropy import masked_cross_entropy
from raymdm.diffusion.guidance import Guided
from raymdm.models import Backbone, load_model

PUBLISHED = FIXTURES / "likelihood" / "exact_masks.json"
LONG = (1, 4, 2, 8, 0, 5)


def exact(row: Rows) -> float:
    """Sum over k of (1/k) times the mean cross-entropy of the masks of k tokens."""
    sums = cross_entropy_sums(tiny_model(), row).detach()
    counts = all_masks(row).sum(-1)
    return sum((sums[counts == k].mean() / k).item() for k in range(1, int(counts.max()) + 1))


def published_cases() -> list[Any]:
    if not PUBLISHED.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason="no published numbers here"))]
    return json.loads(PUBLISHED.read_text())["cases"]


def published_row(case: dict[str, Any]) -> Rows:
    return make_rows([(tuple(case["prompt_ids"]), tuple(case["response_ids"]))])


@pytest.fixture(scope="module")
def published() -> Backbone:
    return load_model(FIXTURES / "llada_tiny", torch.float64)


@pytest.mark.parametrize("case", published_cases())
def test_it_equals_the_published_exact_bound(case: dict[str, Any], published: Backbone):
    """With guidance and without."""
    settings = {"exact_up_to": 12, "guidance": case["cfg_scale"]}
    result = nelbo(published, case["mask_id"], published_row(case), **settings)
    bound = case["exact_negative_log_likelihood_bound"]
    assert result.per_row[0] == pytest.approx(bound, abs=1e-8)
    assert result.variance[0] == 0
    assert result.tokens[0] == case["n"]
    choice = choice_nats(published, case["mask_id"], published_row(case), causal=False, **settings)
    assert choice.per_row[0] == result.per_row[0]


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("case", published_cases())
def test_every_published_mask_costs_what_it_should(
    case: dict[str, Any], precision: str, published: Backbone
):
    """The cross-entropies of all 2^n masks, with guidance and without."""
    exact = precision == "float64"
    model = published if exact else load_model(FIXTURES / "llada_tiny")
    masks = torch.tensor([entry["mask"] for entry in case["masks"]], dtype=torch.bool)
    rows = repeated(published_row(case), len(masks))
    masked = torch.nn.functional.pad(masks, (len(case["prompt_ids"]), 0))
    asked: Any = model
    if case["cfg_scale"]:
        asked = Guided(model, ~rows.eligible, case["mask_id"], case["cfg_scale"])
    with torch.no_grad():
        sums = masked_cross_entropy(
            asked, rows.input_ids, rows.attention_mask, masked, case["mask_id"]
        )
    wanted = [entry["ce_sum" if exact else "ce_sum_float32"] for entry in case["masks"]]
    np.testing.assert_allclose(sums, wanted, rtol=0, atol=1e-8 if exact else 1e-3)
    assert len(wanted) == 2 ** case["n"]


def test_guidance_of_zero_changes_nothing_and_guidance_reads_no_padding():
    model, rows = tiny_model(), make_rows([(PROMPT, RESPONSE), ((2,), LONG)])
    plain = nelbo(model, MASK, rows, draws=3)
    assert (nelbo(model, MASK, rows, draws=3, guidance=0.0).per_row == plain.per_row).all()
    guided = nelbo(model, MASK, rows, draws=3, guidance=0.7)
    assert (abs(guided.per_row - plain.per_row) > 1e-3).all()
    alone = nelbo(model, MASK, make_rows([(PROMPT, RESPONSE)], width=12), draws=3, guidance=0.7)
    assert alone.per_row[0] == pytest.approx(guided.per_row[0], rel=1e-9)


def test_short_responses_are_summed_exactly():
    rows = make_rows([(PROMPT, RESPONSE), ((2,), LONG), ((0, 3, 3), (8,))])
    result = nelbo(tiny_model(), MASK, rows, exact_up_to=6)
    wanted = [exact(make_rows([pair])) for pair in ((PROMPT, RESPONSE), ((2,), LONG))]
    np.testing.assert_allclose(result.per_row[:2], wanted, rtol=1e-8)
    assert (result.variance == 0).all()
    assert result.tokens.tolist() == [4, 6, 1]


def test_a_model_that_knows_nothing_pays_the_uniform_price_for_each_token():
    rows = make_rows([(PROMPT, RESPONSE), ((2,), LONG)])
    result = nelbo(certain_model(), MASK, rows, exact_up_to=4, draws=3)
    np.testing.assert_allclose(result.per_row, np.log(12) * np.array([4, 6]), rtol=1e-12)
    np.testing.assert_allclose(result.variance, 0, atol=1e-20)


@pytest.mark.parametrize("draws", [1, 4])
def test_the_sampled_path_is_unbiased_and_its_variance_is_not_understated(draws: int):
    row = make_rows([(PROMPT, LONG)])
    times = 600
    result = nelbo(tiny_model(), MASK, repeated(row, times), exact_up_to=4, draws=draws)
    error = result.per_row.std() / np.sqrt(times)
    assert abs(result.per_row.mean() - exact(row)) < 4 * error
    assert error < 0.03 * exact(row)
    assert result.per_row.var() <= 1.1 * result.variance.mean()
    assert len(np.unique(result.per_row.round(9))) > times / 20


def test_one_draw_has_no_known_variance_where_it_is_sampled():
    rows = make_rows([(PROMPT, LONG), (PROMPT, (8,))])
    assert nelbo(tiny_model(), MASK, rows, draws=1).variance.tolist() == [np.inf, 0.0]


def test_the_result_does_not_depend_on_the_batch_size():
    rows = make_rows([(PROMPT, RESPONSE), ((2,), LONG), ((0, 3, 3), LONG[:5])], [40, 7, 3])
    results = [nelbo(tiny_model(), MASK, rows, batch_size=size) for size in (1, 7, 256)]
    for other in results[1:]:
        np.testing.assert_allclose(other.per_row, results[0].per_row, rtol=1e-9)
        np.testing.assert_allclose(other.variance, results[0].variance, rtol=1e-6)


def test_the_masks_depend_only_on_the_sample_number():
    pair = ((2,), LONG)
    alone = nelbo(tiny_model(), MASK, make_rows([pair], [7])).per_row[0]
    among = nelbo(tiny_model(), MASK, make_rows([(PROMPT, RESPONSE), pair], [40, 7])).per_row[1]
    other = nelbo(tiny_model(), MASK, make_rows([pair], [8])).per_row[0]
    assert among == pytest.approx(alone, rel=1e-9)
    assert other != pytest.approx(alone, rel=1e-6)


def test_no_gradient_is_kept_and_the_rows_stay_as_they_were():
    model, rows = tiny_model(), make_rows([(PROMPT, RESPONSE)])
    before = rows.input_ids.clone()
    nelbo(model, MASK, rows)
    assert (rows.input_ids == before).all()
    assert all(parameter.grad is None for parameter in model.parameters())
