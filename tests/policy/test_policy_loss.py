"""The policy loss: its gradient, its clipping, and that it adds up."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from rolled import SHAPE, decoding, every_step, policy, rolled, tiny_model
from torch import Tensor

from raymdm.config.policy import PolicySection
from raymdm.models import Backbone
from raymdm.policy.loss import PolicyLoss, policy_loss
from raymdm.policy.rows import PolicyRows
from raymdm.policy.scoring import score

EPSILON = 0.2


@pytest.fixture(scope="module")
def model() -> Backbone:
    return tiny_model()


@pytest.fixture(scope="module")
def reference() -> Backbone:
    return tiny_model(2)


def rows_of(model: Backbone, section: PolicySection) -> PolicyRows:
    return every_step(rolled(model, section.decoding, 1), section)


def gradient(loss: Tensor, model: Backbone) -> Tensor:
    found = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([part.flatten() for part in found])


def off_policy(rows: PolicyRows) -> PolicyRows:
    """Behaviour that was another one: ratios from 1/2 to 2."""
    assert rows.behaviour is not None
    noise = torch.rand(rows.behaviour.shape, generator=torch.Generator().manual_seed(5))
    return rows.with_behaviour(rows.behaviour.double() + (2 * noise - 1) * 0.69)


def flat(logp: list[float], behaviour: list[float], **keys: Any) -> tuple[Tensor, PolicyRows]:
    """One row of counted positions with these log-probabilities, advantage 1 unless given."""
    count = len(logp)
    ones = torch.ones(1, count)
    rows = PolicyRows(
        shown=torch.zeros(1, 1, count, dtype=torch.long),
        coefficients=ones[None],
        attention=ones.bool(),
        response=ones.bool(),
        targets=torch.zeros(1, count, dtype=torch.long),
        counted=ones.bool(),
        weights=ones,
        scale=torch.ones(1),
        advantages=torch.ones(1),
        behaviour=torch.tensor([behaviour], dtype=torch.float64),
    )
    return torch.tensor([logp], dtype=torch.float64, requires_grad=True), replace(rows, **keys)


def loss_of(new: Tensor, rows: PolicyRows, beta: float = 0.0, **keys: Any) -> PolicyLoss:
    return policy_loss(new, rows, epsilon=EPSILON, beta=beta, **keys)


def test_with_ratio_one_and_no_kl_the_gradient_is_reinforces(model: Backbone):
    """Computed from whole logits, position by position: -A · mean of log p over what counts."""
    section = policy(decoding=decoding(temperature=0.7))
    rows = rows_of(model, section)
    new = score(model, rows, section.decoding, SHAPE)
    found = gradient(loss_of(new, rows.with_behaviour(new)).per_row.sum(), model)
    total = torch.zeros((), dtype=torch.float64)
    for row in range(len(rows)):
        real = rows.attention[row]
        logits = model(rows.shown[0, row][real][None])[0] / 0.7
        allowed = torch.arange(12) != SHAPE.mask_token_id
        every = logits.masked_fill(~allowed, -torch.inf).log_softmax(-1)
        places = rows.counted[row][real].nonzero()[:, 0].tolist()
        tokens = rows.targets[row][real].tolist()
        of_row = sum(every[place, tokens[place]] for place in places)
        total = total - rows.advantages[row] * of_row / len(places)
    torch.testing.assert_close(found, gradient(total, model), rtol=1e-9, atol=1e-12)


CASES: list[dict[str, Any]] = [
    {},
    {"length_factor": True, "confidence_weights": True},
    {"tokens": "revealed", "decoding": decoding(remasking="running_max", guidance=0.5)},
    {"after_eos": True, "decoding": decoding(top_p=0.9, temperature=1.0)},
]


@pytest.mark.parametrize("keys", CASES)
def test_the_gradient_is_that_of_finite_differences(
    model: Backbone, reference: Backbone, keys: dict[str, Any]
):
    section = policy(**keys)
    rows = off_policy(rows_of(model, section))
    with torch.no_grad():
        anchor = score(reference, rows, section.decoding, SHAPE)

    def loss(of: Backbone) -> Tensor:
        new = score(of, rows, section.decoding, SHAPE)
        return loss_of(new, rows, beta=0.3, reference=anchor).per_row.sum()

    found = gradient(loss(model), model)
    parameters = list(model.parameters())
    start = [parameter.detach().clone() for parameter in parameters]
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        way = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
        values = []
        with torch.no_grad():
            for step in (1e-6, -1e-6):
                for parameter, there, where in zip(parameters, start, way, strict=True):
                    parameter.copy_(there + step * where)
                values.append(float(loss(model)))
            for parameter, there in zip(parameters, start, strict=True):
                parameter.copy_(there)
        along = float(found @ torch.cat([part.flatten() for part in way]))
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(along, rel=1e-5)


@pytest.mark.parametrize("advantage", [1.5, -1.5])
def test_beyond_the_clip_there_is_no_gradient_where_a_step_would_go_further(advantage: float):
    ratios = [0.4, 0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 2.0]
    logp = torch.tensor(ratios).double().log().tolist()
    new, rows = flat(logp, [0.0] * 8, advantages=torch.tensor([advantage]))
    loss = loss_of(new, rows)
    (found,) = torch.autograd.grad(loss.per_row.sum(), new)
    # d/dlogp of -ρA / M is -ρA / M; a clipped one is constant.
    cut = [ratio > 1.2 if advantage > 0 else ratio < 0.8 for ratio in ratios]
    wanted = [
        0.0 if clipped else -ratio * advantage / 8
        for ratio, clipped in zip(ratios, cut, strict=True)
    ]
    torch.testing.assert_close(found[0], torch.tensor(wanted).double(), rtol=1e-6, atol=1e-12)
    assert (found[0] == 0).tolist() == cut
    limits = [min(r, 1.2) if advantage > 0 else max(r, 0.8) for r in ratios]
    assert float(loss.per_row.detach()) == pytest.approx(-advantage * sum(limits) / 8)
    assert int(loss.sums["clipped"]) == sum(cut) == (2 if advantage > 0 else 3)
    assert int(loss.sums["positions"]) == 8
    assert float(loss.sums["ratio"]) == pytest.approx(sum(ratios))
    assert float(loss.sums["ratio_squared"]) == pytest.approx(sum(r * r for r in ratios))


def test_the_kl_term_by_hand_and_what_weights_and_the_factor_multiply():
    # Two positions with ratio 1, A = 2: -scale · 2 + 0.5 · ½ d², weighted 1 and ½, over 2.
    new, rows = flat(
        [-1.0, -2.0],
        [-1.0, -2.0],
        advantages=torch.tensor([2.0]),
        weights=torch.tensor([[1.0, 0.5]]),
        scale=torch.tensor([3.0]),
    )
    anchor = torch.tensor([[-1.4, -1.0]]).double()
    loss = loss_of(new, rows, beta=0.5, reference=anchor)
    first, second = -6 + 0.5 * 0.4**2 / 2, -6 + 0.5 * 1.0**2 / 2
    assert float(loss.per_row.detach()) == pytest.approx((first + 0.5 * second) / 2)
    assert float(loss.sums["kl"]) == pytest.approx((0.4**2 + 1) / 2)


def test_what_does_not_count_is_not_read_and_an_empty_row_is_nothing():
    new, rows = flat([-1.0, torch.nan], [-1.0, 0.0], counted=torch.tensor([[True, False]]))
    anchor = torch.tensor([[-1.0, torch.nan]]).double()
    loss = loss_of(new, rows, beta=1.0, reference=anchor).per_row.sum()
    assert float(loss.detach()) == -1.0
    assert torch.autograd.grad(loss, new)[0].tolist() == [[-1.0, 0.0]]
    new, rows = flat([-1.0], [-1.0], counted=torch.tensor([[False]]))
    assert float(loss_of(new, rows).per_row.detach().sum()) == 0


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_ratio_beyond_all_numbers_stays_finite(advantage: float):
    new, rows = flat([-0.1], [-2000.0], advantages=torch.tensor([advantage]))
    loss = loss_of(new, rows).per_row.sum()
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, new)[0]).all()


@pytest.mark.parametrize("size", [1, 4, 7])
def test_parts_of_a_batch_add_up_to_the_whole(model: Backbone, reference: Backbone, size: int):
    section = policy(length_factor=True, decoding=decoding(remasking="last"))
    rows = off_policy(rows_of(model, section))

    def of(part: PolicyRows) -> PolicyLoss:
        with torch.no_grad():
            anchor = score(reference, part, section.decoding, SHAPE)
        new = score(model, part, section.decoding, SHAPE)
        return loss_of(new, part, beta=0.1, reference=anchor)

    whole = of(rows)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    parts = [of(rows.take(order[at : at + size])) for at in range(0, len(rows), size)]
    assert len(parts) > 1
    for name, value in whole.sums.items():
        total = sum(float(part.sums[name]) for part in parts)
        assert total == pytest.approx(float(value), rel=1e-9)
    per_row = torch.cat([part.per_row for part in parts])
    torch.testing.assert_close(per_row, whole.per_row[order], rtol=1e-9, atol=1e-12)
    together = gradient(whole.per_row.sum(), model)
    apart = sum(
        gradient(of(rows.take(order[at : at + size])).per_row.sum(), model)
        for at in range(0, len(rows), size)
    )
    torch.testing.assert_close(apart, together, rtol=1e-8, atol=1e-11)


def test_what_is_missing_is_refused():
    new, rows = flat([-1.0], [-1.0])
    with pytest.raises(ValueError, match="needs the reference"):
        loss_of(new, rows, beta=0.1)
    with pytest.raises(ValueError, match="no behaviour"):
        loss_of(new, replace(rows, behaviour=None))
