"""Rows of chosen steps: what the rollout read, what counts, and its own log-probabilities."""

from typing import Any

import pytest
import torch
from rolled import (
    EOS,
    MASK,
    PROMPTS,
    SHAPE,
    by_hand,
    decoding,
    every_step,
    policy,
    rolled,
    tiny_model,
)

from raymdm.config.decoding import DecodingSection
from raymdm.decoding import Trace, batching, generate, prediction, sampling
from raymdm.errors import ConfigurationError
from raymdm.models import Backbone
from raymdm.policy.rows import PolicyRows, Rollout
from raymdm.policy.scoring import score
from raymdm.policy.steps import rows_of_steps, trainable_steps, trained_positions

SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0, "block_length": 4},
    {"remasking": "running_max"},
    {"remasking": "last", "schedule": "cosine", "block_length": 4, "steps": 8},
    {"guidance": 1.5, "temperature": 1.0},
    {"top_p": 0.8, "temperature": 1.5},
    {"top_k": 3, "temperature": 1.5, "sampling": "categorical"},
    {"eos": "never", "confidence": "entropy"},
    {"confidence": "shared_order", "eos": "last", "steps": 8},
    {"stop_at_eos": False, "temperature": 2.0, "steps": None},
]


@pytest.fixture(scope="module")
def model() -> Backbone:
    return tiny_model()


@pytest.fixture(autouse=True)
def rows_of_any_lengths_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "PADDING", None)


@pytest.mark.parametrize("keys", SETTINGS)
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_what_is_recomputed_is_the_rollouts_own(keys: dict[str, Any], precision: torch.dtype):
    model = tiny_model().to(precision)
    settings = decoding(**keys)
    rollouts = rolled(model, settings)
    rows = every_step(rollouts, policy(decoding=settings, after_eos=True))
    # Rows of one length, of several, and in pieces: always the same.
    for part in (rows, rows.take([len(rows) - 1]), rows.take(range(0, len(rows), 2))):
        found = score(model, part, settings, SHAPE)
        assert part.behaviour is not None
        torch.testing.assert_close(
            found[part.counted].float(), part.behaviour[part.counted], rtol=0, atol=1e-5
        )
        assert (found[~part.counted] == 0).all()
    masked = sum(int((rollout.trace.inputs == MASK).sum()) for rollout in rollouts)
    assert int(rows.counted.sum()) == masked > 100


def test_recomputed_at_another_temperature_it_is_not(model: Backbone):
    settings = decoding(temperature=0.4)
    rows = every_step(rolled(model, settings), policy(decoding=settings))
    found = score(model, rows, decoding(temperature=0.408), SHAPE)
    assert rows.behaviour is not None
    assert float((found.detach() - rows.behaviour).abs().max()) > 1e-3


def test_log_probabilities_by_hand(model: Backbone):
    settings = decoding(temperature=0.4, steps=1)
    _, (trace,) = generate(model, [PROMPTS[1]], settings, trace=True, log_probabilities=True)
    with torch.no_grad():
        logits = model(torch.tensor([[*PROMPTS[1], *[MASK] * 8]]))[0, 2:]
    logits[:, MASK] = -torch.inf
    every = (logits / 0.4).log_softmax(-1)
    wanted = every.gather(1, trace.predictions[0][:, None])[:, 0]
    assert trace.log_probability is not None
    torch.testing.assert_close(trace.log_probability[0].double(), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("top_p", "top_k"), [(0.7, None), (None, 3), (0.9, 4)])
def test_a_cut_distribution_adds_up_to_one_and_is_widened_down_to_a_token_outside(
    top_p: float | None, top_k: int | None
):
    logits = torch.randn(5, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    settings = DecodingSection(temperature=0.7, top_p=top_p, top_k=top_k)
    floor = sampling.lowest_drawn(logits / 0.7, top_p, top_k)[:, None]
    inside = logits / 0.7 >= floor
    every = torch.stack(
        [
            sampling.log_probability(logits, torch.full((5,), token), settings)
            for token in range(12)
        ],
        1,
    )
    torch.testing.assert_close(
        every.exp().where(inside, 0.0).sum(-1), torch.ones(5).double(), rtol=1e-12, atol=0
    )
    assert inside.sum() < 60
    weights = (logits / 0.7).exp()
    above = (weights[:, None] * (weights[:, None] >= weights[:, :, None])).sum(-1)
    wanted = (weights / above).log()
    torch.testing.assert_close(every[~inside], wanted[~inside], rtol=1e-9, atol=1e-12)


def test_large_and_small_pieces_have_the_same_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch,
):
    settings = DecodingSection(temperature=0.7, top_p=0.9, guidance=0.5, eos="never")
    tokens = torch.tensor([1, 2, 3, 4, 5])

    def of(at_once: int) -> tuple[torch.Tensor, torch.Tensor]:
        monkeypatch.setitem(prediction.AT_ONCE, "cpu", at_once)
        generator = torch.Generator().manual_seed(0)
        logits = torch.randn(10, 12, generator=generator, dtype=torch.float64).requires_grad_()
        found = prediction.log_probabilities(logits, tokens, settings, SHAPE)
        (found * torch.arange(1.0, 6)).sum().backward()
        assert logits.grad is not None
        return found.detach(), logits.grad

    for large, small in zip(of(2**19), of(24), strict=True):
        torch.testing.assert_close(large, small, rtol=1e-12, atol=1e-15)


def test_half_precision_logits_are_divided_by_the_temperature_in_float32():
    logits = torch.randn(5, 12, generator=torch.Generator().manual_seed(0)).bfloat16()
    tokens, settings = torch.tensor([1, 2, 3, 4, 5]), DecodingSection(temperature=0.4)
    found = prediction.log_probabilities(logits, tokens, settings, SHAPE)
    wide = logits.double().index_fill(1, torch.tensor([MASK]), -torch.inf) / 0.4
    wanted = wide.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-6)


def test_log_probabilities_change_nothing_and_cost_nothing_where_they_are_not_wanted(
    model: Backbone, monkeypatch: pytest.MonkeyPatch
):
    settings = decoding(remasking="running_max")
    responses, traces = generate(model, PROMPTS, settings, trace=True, log_probabilities=True)

    def never(*_: Any) -> None:
        raise AssertionError("nobody asked for it")

    monkeypatch.setattr(prediction, "log_probability", never)
    again, plain = generate(model, PROMPTS, settings, trace=True)
    assert again == responses == generate(model, PROMPTS, settings)
    assert all(trace.log_probability is None for trace in plain)
    for trace, other in zip(traces, plain, strict=True):
        assert trace.log_probability is not None
        assert torch.equal(trace.log_probability.isnan(), trace.inputs != MASK)
        assert torch.equal(trace.predictions, other.predictions)


def test_a_rollout_that_ended_at_an_eos_has_all_steps_and_nothing_to_train_on_in_the_last(
    model: Backbone,
):
    settings = decoding(temperature=3.0, steps=8)
    traces = [rollout.trace for rollout in rolled(model, settings, 8)]
    ended = [trace for trace in traces if (trace.states[-2] != MASK).all()]
    assert ended
    for trace in ended:
        assert trace.log_probability is not None
        assert trace.log_probability.shape == trace.predictions.shape == (8, 8)
        assert trace.log_probability[-1].isnan().all()
        assert torch.equal(trace.predictions[-1], trace.states[-1])
        assert not trained_positions(trace, policy(after_eos=True), SHAPE)[-1].any()


def test_nothing_drawn_has_no_log_probability(model: Backbone):
    with pytest.raises(ConfigurationError, match="temperature above 0"):
        generate(
            model,
            PROMPTS,
            DecodingSection(response_length=4),
            trace=True,
            log_probabilities=True,
        )


def test_rollouts_in_one_batch_are_those_of_separate_ones(model: Backbone):
    settings = decoding(temperature=1.0)
    for rollout in rolled(model, settings):
        alone = generate(
            model, [rollout.prompt], settings, numbers=[rollout.number], rollout=rollout.rollout
        )
        assert alone == [rollout.trace.states[-1].tolist()]


def order(trace: Trace) -> list[list[int]]:
    return (trace.states == MASK).tolist()


def test_rollouts_of_a_prompt_may_share_their_order(model: Backbone):
    shared = rolled(model, decoding(confidence="shared_order", stop_at_eos=False))
    for first, second in zip(shared[::2], shared[1::2], strict=True):
        assert order(first.trace) == order(second.trace)
        assert first.trace.states[-1].tolist() != second.trace.states[-1].tolist()
    assert order(shared[0].trace) != order(shared[2].trace)
    apart = rolled(model, decoding(confidence="random", stop_at_eos=False))
    assert order(apart[0].trace) != order(apart[1].trace)
    assert order(apart[0].trace) == order(shared[0].trace)


M = MASK
TRACE = by_hand(
    [M, M, M, M, M],
    [[1, M, M, M, M], [1, M, EOS, M, M], [1, 2, EOS, M, 3], [1, 2, EOS, 4, 3]],
    [[1, 5, 5, 5, EOS], [1, 5, EOS, 6, 6], [1, 2, EOS, 7, 3], [1, 2, EOS, 4, 3]],
)
"""Five positions in four steps: revealed are 0; 2; 1 and 4; 3."""


def marks(rows: list[str]) -> list[list[bool]]:
    return [[mark == "x" for mark in row] for row in rows]


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({"after_eos": True}, ["xxxxx", ".xxxx", ".x.xx", "...x."]),
        ({}, ["xxxxx", ".xx..", ".x...", "....."]),
        ({"tokens": "revealed", "after_eos": True}, ["x....", "..x..", ".x..x", "...x."]),
        ({"tokens": "revealed"}, ["x....", "..x..", ".x...", "....."]),
    ],
)
def test_positions_that_are_trained_on(keys: dict[str, Any], wanted: list[str]):
    section = policy(**keys)
    assert trained_positions(TRACE, section, SHAPE).tolist() == marks(wanted)
    assert trainable_steps([TRACE], section, SHAPE).tolist() == [["x" in row for row in wanted]]


def test_a_prediction_that_remasking_took_back_was_not_revealed():
    trace = by_hand([M, M], [[1, M], [4, M], [4, 5]], [[1, 2], [1, 3], [4, 5]])
    # At the second step position 0 was not masked; at the third both are not what was masked.
    section = policy(tokens="revealed")
    assert trained_positions(trace, section, SHAPE).tolist() == marks(["x.", "..", ".x"])


def one_row(step: int, **keys: Any) -> PolicyRows:
    return rows_of_steps([Rollout([7, 8], TRACE, 0, 0)], [step], [2.0], policy(**keys), SHAPE)


def test_a_row_is_what_the_rollout_read_at_that_step():
    rows = one_row(1)
    assert rows.shown.tolist() == [[[7, 8, 1, M, M, M, M]]]
    assert rows.targets.tolist() == [[7, 8, 1, 5, EOS, 6, 6]]
    assert rows.counted.tolist() == rows.coefficients[0].bool().tolist() == marks(["...xx.."])
    assert rows.response.tolist() == marks(["..xxxxx"])
    assert rows.attention.all()
    assert rows.weights.tolist() == [[0, 0, 0, 1, 1, 0, 0]]
    assert rows.advantages.tolist() == [2.0]
    assert rows.scale.tolist() == [1.0]
    wanted = torch.tensor([[0, 0, 0, 1, 1, 0, 0]]) * torch.tensor(0.25).log()
    torch.testing.assert_close(rows.behaviour, wanted)


def test_weights_are_the_rollouts_confidence_and_the_factor_is_length_over_masked():
    assert one_row(1, confidence_weights=True).weights.tolist() == [[0, 0, 0, 0.5, 0.5, 0, 0]]
    assert one_row(1, length_factor=True).scale.tolist() == [3 / 2]  # the text has three tokens
    assert one_row(1, length_factor=True, after_eos=True).scale.tolist() == [5 / 4]
    revealed = one_row(0, length_factor=True, tokens="revealed")
    assert revealed.scale.tolist() == [5 / 5]


def test_rows_are_padded_on_the_left_and_taken_without_what_is_not_needed():
    rollouts = [Rollout([7, 8, 0], TRACE, 0, 0), Rollout([6], TRACE, 1, 0)]
    rows = rows_of_steps(rollouts, [0, 1], [1.0, -1.0], policy(), SHAPE)
    assert rows.attention.tolist() == marks(["xxxxxxxx", "..xxxxxx"])
    short = rows.take([1])
    assert short.shown.tolist() == [[[6, 1, M, M, M, M]]]
    assert short.counted.tolist() == marks(["..xx.."])
    assert short.advantages.tolist() == [-1.0]
    assert len(rows.take([])) == 0


def test_a_trace_without_log_probabilities_is_refused():
    trace = Trace(TRACE.start, TRACE.states, TRACE.predictions, TRACE.confidence, TRACE.positions)
    with pytest.raises(ValueError, match="without log-probabilities"):
        rows_of_steps([Rollout([7], trace, 0, 0)], [0], [1.0], policy(), SHAPE)


def test_predictions_of_a_cache_are_refused(model: Backbone):
    settings = DecodingSection(
        response_length=8, block_length=4, cache="dual", temperature=1.0, stop_at_eos=False
    )
    _, (trace,) = generate(model, [PROMPTS[0]], settings, trace=True, log_probabilities=True)
    with pytest.raises(ValueError, match="prediction of their own"):
        rows_of_steps([Rollout(PROMPTS[0], trace, 0, 0)], [1], [1.0], policy(after_eos=True), SHAPE)


@pytest.mark.parametrize("tokens", ["all_masked", "revealed"])
@pytest.mark.parametrize("remasking", ["none", "running_max"])
def test_a_step_alone_is_as_among_the_others(model: Backbone, tokens: str, remasking: str):
    section = policy(tokens=tokens)
    for rollout in rolled(model, decoding(remasking=remasking, temperature=1.0)):
        trace = rollout.trace
        trained = trained_positions(trace, section, SHAPE)
        assert trace.log_probability is not None
        for step in range(len(trace.states)):
            alone = trace.only(step)
            assert torch.equal(alone.inputs, trace.inputs[step : step + 1])
            assert torch.equal(trained_positions(alone, section, SHAPE)[0], trained[step])
            for name in ("states", "predictions", "confidence", "log_probability"):
                whole = getattr(trace, name)[step : step + 1]
                torch.testing.assert_close(
                    getattr(alone, name), whole, rtol=0, atol=0, equal_nan=True
                )
