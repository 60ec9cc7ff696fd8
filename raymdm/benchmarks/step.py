"""Speed of a whole training step, and its share of the fastest matrix product of the machine.

Forward, backward and fused AdamW on fp32 copies of the weights; Standard's masks; only predicted
positions reach the head, in chunks. Eager and compiled, with and without activation checkpointing,
one after the other, each with a new model. What is computed twice (checkpointing, chunks) counts
once in the model's arithmetic (`step_operations`: the matrices of the blocks for every token, the
head for predicted ones only), so its share of the peak is model FLOPs utilisation (MFU, arXiv
2204.02311) and not what kept the hardware busy. The peak is the fastest of a few square products
in the same precision, measured here.
"""

import functools
import gc
import itertools
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from rich.table import Table

from raymdm.benchmarks.alternation import TOLERANCE, check_same_work
from raymdm.benchmarks.device import default_device
from raymdm.benchmarks.request import Report, Request
from raymdm.benchmarks.whole_step import (
    Batch,
    Trainer,
    Variant,
    product_speed,
    step_operations,
    timed,
)
from raymdm.config import Config, read_config
from raymdm.config.training import TrainingSection
from raymdm.errors import RunError
from raymdm.models import Backbone, SpecialTokens, build_model
from raymdm.models.initial import shape_from_config
from raymdm.models.weights import PRECISIONS

ONE_BILLION = {
    "hidden_size": 2048,
    "layers": 16,
    "heads": 16,
    "intermediate_size": 5632,
    "rope_theta": 500000.0,
}
"""LLaDA's shape with 0.8G weights in its blocks: 1.3G with embedding and head of its vocabulary."""


@dataclass(frozen=True)
class Plan:
    """Size of the measurement; a variant is a choice of `compiled` and one of `recompute`."""

    vocabulary_size: int = 126464
    length: int = 4096
    compiled: tuple[bool, ...] = (False, True)
    recompute: tuple[bool, ...] = (False, True)
    products: tuple[int, ...] = (4096, 8192, 16384)
    blocks: int = 10
    warm_up: int = 3


TINY = Plan(vocabulary_size=1024, length=128, compiled=(False,), products=(256, 512, 1024))
"""For a machine without a GPU."""


@dataclass(frozen=True)
class VariantFigures:
    """One variant.

    Attributes:
        variant: which.
        speed: tokens per second, median over the steps.
        quartiles: of that.
        operations: of the model per second, median.
        share: of the peak (MFU).
        memory: most bytes allocated on the GPU; None without one.
        loss: of its first step.
    """

    variant: Variant
    speed: float
    quartiles: tuple[float, float]
    operations: float
    share: float
    memory: int | None
    loss: float


@dataclass(frozen=True)
class StepFigures:
    """What was measured: `peak` in operations per second, of a product of `peak_size`² matrices;
    first losses differ by `difference`; variants that did not fit are named in `out_of_memory`.
    """

    device: str
    precision: str
    parameters: int
    rows: int
    length: int
    peak: float
    peak_size: int
    difference: float
    variants: list[VariantFigures]
    out_of_memory: list[str]


def bench(request: Request) -> Report:
    """Figures of the large model on a GPU, of a tiny one elsewhere, or of the one asked for."""
    gpu = default_device().type == "cuda"
    base: dict[str, Any] = {
        **({"model": ONE_BILLION} if gpu else read_config(["models/tiny"])),
        "training": {
            "batch_size": 4,
            "precision": "bf16" if gpu else "fp32",
            "head_chunk": 1024 if gpu else 64,
        },
    }
    config = request.settings(base)
    plan = Plan() if gpu else TINY
    figures = measure_step(config, replace(plan, blocks=request.blocks or plan.blocks))
    return Report([table(figures)], asdict(figures))


def table(figures: StepFigures) -> Table:
    """All variants."""
    without = "a CPU (no GPU here: this only shows that it runs)"
    place = without if figures.device == "cpu" else figures.device
    made = Table(
        title=f"{figures.parameters / 1e6:,.1f}M parameters, {figures.rows} rows of "
        f"{figures.length} tokens a step, {figures.precision} on {place}",
        caption=f"peak: {figures.peak / 1e12:.3g} TFLOP/s, a product of {figures.peak_size}² "
        f"matrices; same first loss up to {figures.difference:.0e} (relative)",
    )
    made.add_column("step")
    for column in ("tokens/s (quartiles)", "TFLOP/s", "MFU", "memory GB"):
        made.add_column(column, justify="right")
    for variant in figures.variants:
        low, high = variant.quartiles
        made.add_row(
            str(variant.variant),
            f"{variant.speed:,.0f} ({low:,.0f} to {high:,.0f})",
            f"{variant.operations / 1e12:.3g}",
            f"{variant.share:.1%}",
            "–" if variant.memory is None else f"{variant.memory / 1e9:.1f}",
        )
    for name in figures.out_of_memory:
        made.add_row(name, "out of memory")
    return made


def measure_step(config: Config, plan: Plan) -> StepFigures:
    """The peak, then every variant.

    Args:
        config: model, seed, training (batch_size, precision, head_chunk, threads_per_worker).
        plan: the rest.

    Raises:
        RunError: the variants' first losses differ, or none of them fits into memory.
    """
    training = config.training
    torch.set_num_threads(training.threads_per_worker)
    peaks = {size: product_speed(size, PRECISIONS[training.precision]) for size in plan.products}
    size, peak = max(peaks.items(), key=lambda item: item[1])
    last = plan.vocabulary_size - 1
    shape = shape_from_config(
        config.model,
        vocabulary_size=plan.vocabulary_size,
        tokens=SpecialTokens(last - 2, last - 1, last),
    )
    batches = [
        Batch.drawn(shape, config.seed, step, training.batch_size, plan.length)
        for step in range(plan.warm_up + plan.blocks)
    ]
    variants = [Variant(*choice) for choice in itertools.product(plan.compiled, plan.recompute)]
    model = build_model(shape, config.seed, config.model.initializer_std)
    found = {
        variant: _measured(model, training, variant, batches, plan.warm_up, peak)
        for variant in variants
    }
    fitting = [figures for figures in found.values() if figures is not None]
    if not fitting:
        raise RunError("bench step: no variant fits into memory; lower training.batch_size")
    losses = np.array([figures.loss for figures in fitting])
    difference = float(np.max(np.abs(losses / losses[0] - 1)))
    check_same_work(difference, TOLERANCE[training.precision], "first losses of the variants")
    return StepFigures(
        device=torch.cuda.get_device_name() if default_device().type == "cuda" else "cpu",
        precision=training.precision,
        parameters=sum(weight.numel() for weight in model.parameters()),
        rows=training.batch_size,
        length=plan.length,
        peak=peak,
        peak_size=size,
        difference=difference,
        variants=fitting,
        out_of_memory=[str(variant) for variant, figures in found.items() if figures is None],
    )


def _measured(
    model: Backbone,
    training: TrainingSection,
    variant: Variant,
    batches: list[Batch],
    warm_up: int,
    peak: float,
) -> VariantFigures | None:
    """A copy's steps over the batches; None where they do not fit into memory."""
    gpu = default_device().type == "cuda"
    if gpu:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    try:
        trainer = Trainer(model, training, variant)
        steps = [timed(functools.partial(trainer.step, batch)) for batch in batches]
    except torch.cuda.OutOfMemoryError:
        return None
    measured = range(warm_up, len(batches))
    seconds = np.array([steps[number][1] for number in measured])
    speeds = batches[0].masked.numel() / seconds
    operations = [step_operations(model, batches[number].masked) for number in measured]
    low, high = np.quantile(speeds, [0.25, 0.75])
    per_second = float(np.median(operations / seconds))
    return VariantFigures(
        variant=variant,
        speed=float(np.median(speeds)),
        quartiles=(float(low), float(high)),
        operations=per_second,
        share=per_second / peak,
        memory=torch.cuda.max_memory_allocated() - before if gpu else None,
        loss=steps[0][0],
    )
