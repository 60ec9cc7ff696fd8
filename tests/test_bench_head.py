"""`raymdm bench head`: the ways compute the same, and their memory is their own."""

import os
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from raymdm.benchmarks import head as head_bench
from raymdm.benchmarks import memory as memory_bench
from raymdm.benchmarks.head import ALL, FULL, GATHERED, Plan, Work, measure_head
from raymdm.benchmarks.memory import in_fresh_process, peak_beyond_now
from raymdm.errors import RunError

TINY = Plan(rows=3, length=16, width=8, vocabulary_size=300, chunks=(2, 5), blocks=2)
# Logits of all positions are 51 MB, those of the predicted quarter 13, the weight's gradient 6.
WIDE = Plan(rows=4, length=64, width=32, vocabulary_size=50_000, chunks=(4,), blocks=2)


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 1e-5), ("bf16", 2e-2)])
def test_all_ways_give_the_same_loss_and_gradients(precision: str, allowed: float) -> None:
    work = Work(replace(TINY, precision=precision))
    assert len(work.plan.ways) == 5
    assert 0 <= work.difference() < allowed
    assert work.hidden.grad is not None
    # A gradient reaches the predicted quarter of the positions and no other.
    assert (work.hidden.grad.abs().sum(-1) > 0).sum() == 12


def test_ways_that_differ_get_no_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Work._full_logits

    def lazy(self: Work) -> Tensor:
        return 0.99 * full(self)

    monkeypatch.setattr(Work, "_full_logits", lazy)
    monkeypatch.setattr(head_bench, "in_fresh_process", lambda *_: 1)
    with pytest.raises(RunError, match=r"gradients of the ways differ .* no ratio is given"):
        measure_head(TINY)


def test_every_way_is_compared_with_the_first_two() -> None:
    figures = measure_head(WIDE)
    assert [way.name for way in figures.ways] == [ALL, FULL, GATHERED, "  in chunks of 4"]
    assert (figures.positions, figures.predicted) == (256, 64)
    everywhere, full, *_ = figures.ways
    assert everywhere.faster_than_all.median == everywhere.smaller_than_all == 1
    assert full.faster_than_full.median == full.smaller_than_full == 1
    assert "chunks" in figures.best.name
    for way in figures.ways:
        assert way.seconds > 0
        assert way.faster_than_all.low <= way.faster_than_all.median <= way.faster_than_all.high


@pytest.mark.skipif(torch.cuda.is_available(), reason="counts the memory of a CPU")
def test_peak_memory_is_that_of_one_way_in_a_fresh_process() -> None:
    """What this process held before is not in it."""
    held = torch.ones(50_000_000)
    del held
    logits = 4 * 256 * WIDE.vocabulary_size
    peaks = [in_fresh_process(way, head_bench._peak, WIDE, way) for way in WIDE.ways]
    everywhere, full, gathered, chunked = peaks
    # Logits, their log-softmax and its gradient; logits and their gradient, a quarter each.
    assert 2.9 * logits < everywhere < 4 * logits
    assert logits < full < 2 * logits
    assert 0.5 * logits < gathered < logits
    assert 0 < chunked < 0.4 * logits


def test_memory_too_small_to_be_seen_is_not_called_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory_bench, "resident_bytes", lambda field: 4096)
    with pytest.raises(RunError, match="too little memory"):
        peak_beyond_now(lambda: None, torch.device("cpu"))


def test_a_process_that_is_killed_is_named() -> None:
    with pytest.raises(RunError, match=f"bench: {GATHERED} was killed, .* smaller"):
        in_fresh_process(GATHERED, os._exit, 9)
