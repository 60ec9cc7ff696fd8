"""Traces made small come back as they were, whatever sampler made them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rolled import MASK, PROMPTS, SHAPE, by_hand, decoding, rolled, tiny_model

from raymdm.config.decoding import DecodingSection
from raymdm.decoding import Trace, generate, infill
from raymdm.errors import CheckpointError, ConfigurationError
from raymdm.policy.compact import compact, expand, read_traces, size, write_traces

MODEL = tiny_model()
CAUSAL = tiny_model(shape=replace(SHAPE, causal=True))
KEYS = {
    "block_length": [None, 4, 8],
    "steps": [None, 2, 4, 8],
    "schedule": ["even", "remaining", "linear", "cosine", "power", "log", "exp"],
    "confidence": ["probability", "margin", "entropy", "random", "shared_order"],
    "threshold": [None, None, 0.3],
    "remasking": ["none", "running_max", "last"],
    "temperature": [0.0, 0.4, 1.5],
    "sampling": ["gumbel", "categorical"],
    "top_p": [None, 0.7],
    "top_k": [None, 3],
    "guidance": [0.0, 0.5],
    "eos": ["free", "last", "never"],
    "stop_at_eos": [True, False],
    "cache": ["none", "none", "prefix", "dual"],
}


def assert_equal(found: Trace, trace: Trace) -> None:
    """Everything exactly, the confidence to float16."""
    for name in ("start", "states", "predictions", "positions"):
        assert getattr(found, name).dtype == torch.int64
        assert torch.equal(getattr(found, name), getattr(trace, name)), name
    half = trace.confidence.half().float()
    torch.testing.assert_close(found.confidence, half, rtol=0, atol=0, equal_nan=True)
    if trace.log_probability is None:
        assert found.log_probability is None
        return
    torch.testing.assert_close(
        found.log_probability, trace.log_probability, rtol=0, atol=0, equal_nan=True
    )


@settings(max_examples=150)
@given(st.fixed_dictionaries({key: st.sampled_from(values) for key, values in KEYS.items()}))
def test_a_trace_of_any_sampler_comes_back_as_it_was(keys):
    try:
        section = DecodingSection(response_length=8, **keys)
        drawn = section.temperature > 0
        _, traces = generate(MODEL, PROMPTS, section, trace=True, log_probabilities=drawn)
    except (ValidationError, ConfigurationError):
        return  # settings that contradict each other
    for trace in traces:
        assert (trace.log_probability is not None) == drawn
        assert_equal(expand(compact(trace)), trace)


def test_traces_of_rollouts_of_a_causal_model_and_of_filled_gaps_come_back_too():
    section = DecodingSection(response_length=8, temperature=1.0)
    rows = [[1, MASK, 2, MASK, MASK], [3, 4]]
    traces = [rollout.trace for rollout in rolled(MODEL, decoding(eos="last"))]
    traces += generate(CAUSAL, PROMPTS, section, trace=True)[1]
    traces += infill(MODEL, rows, section, trace=True)[1]
    assert [len(trace.start) for trace in traces[-2:]] == [3, 0]
    for trace in traces:
        assert_equal(expand(compact(trace)), trace)


def test_what_is_neither_predicted_nor_masked_is_listed():
    trace = by_hand([MASK] * 3, [[1, MASK, 9], [1, 5, 7]], [[1, 2, 3], [1, 5, 4]])
    arrays = compact(trace)
    assert arrays["other_at"].tolist() == [2, 5]
    assert_equal(expand(arrays), trace)


@pytest.mark.parametrize("vocabulary", [65_536, 200_000])
def test_every_token_of_a_large_vocabulary_comes_back(vocabulary: int):
    trace = by_hand([vocabulary - 1] * 2, [[65_535, 0]], [[65_535, 0]])
    trace = replace(trace, predictions=torch.tensor([[vocabulary - 2, 0]]))
    assert_equal(expand(compact(trace)), trace)


def test_128_steps_of_512_tokens_of_a_large_vocabulary_take_less_than_a_megabyte():
    predictions = torch.randint(126_464, (128, 512), generator=torch.Generator().manual_seed(0))
    states = predictions.where(torch.rand(128, 512) < 0.5, 126_336)
    states[-1] = 126_081  # nothing of the last step stands
    trace = Trace(
        start=torch.full((512,), 126_336),
        states=states,
        predictions=predictions,
        confidence=torch.rand(128, 512),
        positions=torch.arange(300, 812),
        log_probability=torch.rand(128, 512).log(),
    )
    assert size(compact(trace)) <= 700_000
    assert_equal(expand(compact(trace)), trace)


def test_a_group_is_written_with_what_belongs_to_it(tmp_path: Path):
    traces = [rollout.trace for rollout in rolled(MODEL, decoding())]
    rewards = torch.rand(len(traces), 4, dtype=torch.float64)
    path = write_traces(tmp_path / "group", traces, {"rewards": rewards}, {"item": "gsm8k-7"})
    found = read_traces(path)
    for trace, back in zip(traces, found.traces, strict=True):
        assert_equal(back, trace)
    assert torch.equal(found.arrays["rewards"], rewards)
    assert found.metadata == {"item": "gsm8k-7"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_may_have_no_traces(tmp_path: Path):
    found = read_traces(write_traces(tmp_path / "none", []))
    assert (found.traces, found.arrays, found.metadata) == ([], {}, {})


def test_a_file_that_is_broken_half_or_missing_is_told_in_a_line(tmp_path: Path):
    path = write_traces(tmp_path / "group", [rolled(MODEL, decoding())[0].trace])
    whole = path.read_bytes()
    for content in (whole[:-5], whole[:100], b"", b"not tensors", None):
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"group: no whole file of traces .*anew") as told:
            read_traces(path)
        assert "\n" not in str(told.value)
