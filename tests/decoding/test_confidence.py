"""What ranks predictions: the model's own distribution, before anything is done to draw from it."""

import math
from typing import Any

import pytest
import torch
from written import EOS, MASK, SHAPE

from raymdm.config.decoding import DecodingSection
from raymdm.decoding.prediction import Prediction, predict

PROBABILITY = {3: 0.5, 7: 0.3, EOS: 0.15, MASK: 0.05}


def logits() -> torch.Tensor:
    table = torch.full((1, 24), -torch.inf)
    for token, probability in PROBABILITY.items():
        table[0, token] = math.log(probability)
    return table


def one(noise: float = 0.0, order: float = 0.0, **keys: Any) -> Prediction:
    uniform = torch.tensor([[noise], [order]], dtype=torch.float64)
    return predict(logits(), DecodingSection(**keys), SHAPE, uniform)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("probability", 0.5),
        ("margin", 0.2),
        ("entropy", sum(p * math.log(p) for p in PROBABILITY.values())),
        ("random", 0.25),
    ],
)
def test_each_kind_is_what_its_name_says(kind: Any, wanted: float):
    found = one(order=0.25, confidence=kind)
    assert found.tokens.tolist() == [3]
    assert found.confidence.item() == pytest.approx(wanted, abs=1e-6)
    assert found.probability.item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize(("kind", "wanted"), [("probability", 0.3), ("margin", -0.2)])
def test_a_drawn_token_has_its_own_probability_whatever_it_was_drawn_from(kind: Any, wanted: float):
    keys: dict[str, Any] = {"temperature": 3.0, "top_k": 2, "sampling": "categorical"}
    found = one(noise=0.9, confidence=kind, **keys)
    assert found.tokens.tolist() == [7]
    assert found.confidence.item() == pytest.approx(wanted, abs=1e-6)


def test_a_token_that_is_not_to_be_written_keeps_its_share_of_the_distribution():
    table = logits()
    table[0, EOS], table[0, 3] = table[0, 3].clone(), table[0, EOS].clone()
    found = predict(table, DecodingSection(eos="never", confidence="margin"), SHAPE, None)
    assert found.tokens.tolist() == [7]
    assert found.probability.item() == pytest.approx(0.3, abs=1e-6)
    assert found.confidence.item() == pytest.approx(0.3 - 0.5, abs=1e-6)


def test_guidance_moves_the_logits_away_from_those_without_the_prompt():
    torch.manual_seed(0)
    with_prompt, without = torch.randn(2, 5, 24)
    guided = without + 2.5 * (with_prompt - without)
    settings = DecodingSection(guidance=1.5, confidence="entropy")
    found = predict(torch.cat([with_prompt, without]), settings, SHAPE, None)
    wanted = predict(guided, DecodingSection(confidence="entropy"), SHAPE, None)
    assert torch.equal(found.tokens, wanted.tokens)
    torch.testing.assert_close(found.confidence, wanted.confidence)
    torch.testing.assert_close(found.probability, wanted.probability)


def test_logits_of_half_precision_are_worked_on_in_float32():
    table = torch.randn(3, 24).bfloat16()
    found = predict(table.clone(), DecodingSection(), SHAPE, None)
    wanted = predict(table.float(), DecodingSection(), SHAPE, None)
    assert found.probability.dtype == torch.float32
    assert torch.equal(found.probability, wanted.probability)


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_positions_in_parts_are_the_same_as_all_at_once(
    monkeypatch: pytest.MonkeyPatch, guidance: float
):
    torch.manual_seed(1)
    table, noise = torch.randn(22, 24), torch.rand(2, 11, dtype=torch.float64)
    if not guidance:
        table = table[:11]
    settings = DecodingSection(temperature=1.0, guidance=guidance)
    whole = predict(table.clone(), settings, SHAPE, noise)
    monkeypatch.setattr("raymdm.decoding.prediction.AT_ONCE", {"cpu": 3 * 24})
    parts = predict(table.clone(), settings, SHAPE, noise)
    assert torch.equal(whole.tokens, parts.tokens)
    assert torch.equal(whole.confidence, parts.confidence)


def test_nothing_to_predict_is_no_trouble():
    assert predict(torch.zeros(0, 24), DecodingSection(), SHAPE, None).tokens.shape == (0,)
