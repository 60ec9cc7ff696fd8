"""`raymdm bench step`: the arithmetic it counts, the step it measures."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from raymdm import cli
from raymdm.benchmarks.step import TINY, measure_step
from raymdm.benchmarks.whole_step import AdamW, Batch, Trainer, Variant, step_operations
from raymdm.config import Config
from raymdm.config.loading import validate
from raymdm.errors import RunError
from raymdm.models import Backbone, ModelShape, build_model

SHAPE = ModelShape(96, 16, 2, 4, 2, 24, 93, 94, 95)
SMALL = replace(TINY, vocabulary_size=96, length=12, products=(8, 16), blocks=2)


def _config(**training: object) -> Config:
    return validate(
        {
            "model": {"hidden_size": 16, "layers": 1, "heads": 2},
            "training": {"batch_size": 3, **training},
        }
    )


def test_operations_are_those_that_torch_counts() -> None:
    """Forward and backward, grouped queries, logits at predicted positions only."""
    model = build_model(SHAPE, 0)
    batch = Batch.drawn(SHAPE, 0, 0, rows=3, length=10)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        Trainer(model, _config().training, Variant(False, False)).step(batch)
    assert step_operations(model, batch.masked) == counter.get_total_flops()


def test_variants_train_the_same_model_and_have_their_share_of_the_peak() -> None:
    figures = measure_step(_config(head_chunk=2), SMALL)
    assert [str(found.variant) for found in figures.variants] == ["eager", "eager, checkpointing"]
    assert figures.difference < 1e-6
    for found in figures.variants:
        assert found.share == pytest.approx(found.operations / figures.peak)
        low, high = found.quartiles
        assert low <= found.speed <= high
    assert figures.peak_size in SMALL.products


def test_a_variant_that_computes_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step = Trainer.step

    def lazy(self: Trainer, batch: Batch) -> float:
        return step(self, batch) * (0.99 if self.model.execution.recompute else 1.0)

    monkeypatch.setattr(Trainer, "step", lazy)
    with pytest.raises(RunError, match="first losses of the variants differ"):
        measure_step(_config(), SMALL)


def test_a_variant_that_does_not_fit_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.step

    def hungry(self: Trainer, batch: Batch) -> float:
        if not self.model.execution.recompute:
            raise torch.cuda.OutOfMemoryError("too much")
        return step(self, batch)

    monkeypatch.setattr(Trainer, "step", hungry)
    figures = measure_step(_config(), SMALL)
    assert figures.out_of_memory == ["eager"]
    assert [str(found.variant) for found in figures.variants] == ["eager, checkpointing"]
    with pytest.raises(RunError, match="no variant fits into memory"):
        measure_step(_config(), replace(SMALL, recompute=(False,)))


def test_updates_are_added_up_in_single_precision() -> None:
    """A half-precision weight of 1 would never move by a ten-thousandth."""
    model = Backbone(SHAPE).to(torch.bfloat16)
    nn.init.ones_(model.norm.weight)
    optimizer = AdamW(model)
    for _ in range(50):
        for weight in model.parameters():
            weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert model.norm.weight.dtype == torch.bfloat16
    assert (model.norm.weight < 1).all()
    assert all(weight.grad is None for weight in model.parameters())


def test_a_step_trains() -> None:
    trainer = Trainer(build_model(SHAPE, 0), _config().training, Variant(False, True))
    batch = Batch.drawn(SHAPE, 0, 0, rows=4, length=10)
    losses = [trainer.step(batch) for _ in range(20)]
    assert losses[-1] < losses[0]
    assert batch.masked.any()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_tiny_model_shows_that_it_runs(tmp_path: Path) -> None:
    file = tmp_path / "step.json"
    result = CliRunner().invoke(
        cli.app, ["bench", "step", "--blocks", "1", "--json", str(file)], env={"COLUMNS": "160"}
    )
    assert result.exit_code == 0, result.output
    assert "no GPU here" in result.output
    figures = json.loads(file.read_text())
    assert (figures["name"], figures["device"]) == ("step", "cpu")
    assert figures["variants"][0]["variant"] == {"compiled": False, "recompute": False}
