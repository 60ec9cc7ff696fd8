"""`raymdm bench rl`: both sides make the same forwards, and the seconds of rounds are all told."""

import math
from pathlib import Path

import pytest
import torch

from raymdm.benchmarks import rl
from raymdm.benchmarks.decode_work import Subject
from raymdm.benchmarks.rl_rounds import Clock, RoundPlan, RoundTimes, measure_rounds
from raymdm.config.loading import validate
from raymdm.config.model import ModelSection
from raymdm.errors import RunError

SIZES = {"hidden_size": 16, "layers": 1, "heads": 2}
SUBJECT = Subject("smallest", ModelSection.model_validate(SIZES), 40, 0.5)
PLAN = rl.Plan(
    prompts=2,
    group=2,
    shortest=2,
    longest=6,
    response_length=8,
    steps=4,
    blocks=2,
    trace_length=64,
    trace_steps=16,
)
ROUNDS = RoundPlan(prompts=4, shortest=2, longest=6, vocabulary_size=300, rounds=2)


def rounds(folder: Path, **policy: object) -> RoundTimes:
    decoding = {"response_length": 8, "steps": 4}
    section = {"prompts_per_step": 2, "group_size": 3, "decoding": decoding, **policy}
    config = validate({"model": SIZES, "policy": section})
    return measure_rounds("smallest", config, folder, ROUNDS)


def test_rollouts_are_compared_with_as_many_forwards() -> None:
    found = rl.measure_rollouts(PLAN, [SUBJECT], lambda told: None)
    assert [(row.model, row.sampling) for row in found] == [
        ("smallest", "gumbel"),
        ("smallest", "categorical"),
    ]
    for row in found:
        # Four rows of eight masks, of which each of the steps reveals two.
        assert row.forwards % 4 == 0
        assert row.positions == 4 * (8 + 6 + 4 + 2)
        assert all(math.isfinite(speed) and speed > 0 for speed in (row.speed, row.bare))
        assert 0 < row.of_bare.low <= row.of_bare.median <= row.of_bare.high
    assert found[0].forwards == found[1].forwards
    assert rl.rollout_table(found).row_count == 2


def test_no_ratio_of_sides_that_made_other_forwards(monkeypatch: pytest.MonkeyPatch) -> None:
    roll = rl.roll

    def lazy(model: object, asks: list[rl.Ask], batch_size: int) -> object:
        return roll(model, asks[1:], batch_size)  # type: ignore[arg-type]

    def once(model: object, asks: list[rl.Ask], batch_size: int) -> object:
        # The recorded forwards are whole, what is timed is not.
        monkeypatch.setattr(rl, "roll", lazy)
        return roll(model, asks, batch_size)  # type: ignore[arg-type]

    monkeypatch.setattr(rl, "roll", once)
    with pytest.raises(RunError, match=r"did not make the same forwards .* no ratio is given"):
        rl.measure_rollouts(PLAN, [SUBJECT], lambda told: None)


def test_all_seconds_of_rounds_have_a_part(tmp_path: Path) -> None:
    found = rounds(tmp_path)
    # Six rollouts of four steps in each round, and every trained row under policy and reference.
    assert found.rows > 2 * 6 * 4
    assert (found.rows - 2 * 6 * 4) % 2 == 0
    assert len(found.outside) == found.rounds == 2
    assert all(0 < share < 1 for share in found.outside)
    assert all(seconds >= 0 for seconds in found.seconds.values())
    computed = sum(found.seconds[part] for part in rl.COMPUTED)
    assert all(found.seconds[part] > 0 for part in (*rl.COMPUTED, "optimiser", "rewards"))
    wall = sum(found.seconds.values())
    assert min(found.outside) <= 1 - computed / wall <= max(found.outside)
    assert rl.round_table(found).row_count == len(found.seconds)


def test_no_share_where_other_rows_went_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Clock.watch

    def deaf(self: Clock, model: torch.nn.Module, name: object) -> None:
        if name() != "reference forwards":  # type: ignore[operator]
            watch(self, model, name)  # type: ignore[arg-type]

    monkeypatch.setattr(Clock, "watch", deaf)
    with pytest.raises(RunError, match=r"rows went forward where the rounds say .* no share"):
        rounds(tmp_path)


def test_traces_are_weighed() -> None:
    """A byte of standing bits for eight positions; tokens of LLaDA's vocabulary take twice two."""
    large, small = (rl.weigh(name, tokens, PLAN) for name, tokens in rl.VOCABULARIES.items())
    places = 16 * 64
    rest = places // 8 + places * (2 + 4) + 64 * 4
    assert small.bytes == rest + 2 * (places + 64)
    assert large.bytes == rest + 4 * (places + 64)
    assert large.as_tensors == small.as_tensors > 2 * large.bytes
    assert rl.trace_table([large, small]).row_count == 2
