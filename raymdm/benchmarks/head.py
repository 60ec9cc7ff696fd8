"""The output layer and its loss: logits everywhere, or only where a token is predicted.

Four ways to the same loss and the same gradients of hidden states and weight: cross-entropies at
all positions (those not predicted count zero); logits of all positions, then the predicted ones
(index after the head); the predicted positions' hidden states first, then the head (gather before
the head), with all their logits at once or in chunks that are computed again in the backward pass.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from raymdm.benchmarks.alternation import TOLERANCE, Ratio, alternate, check_same_work, ratio
from raymdm.benchmarks.device import default_device
from raymdm.benchmarks.memory import in_fresh_process, peak_beyond_now
from raymdm.benchmarks.request import Report, Request
from raymdm.models.head import Head
from raymdm.models.rotary import widened
from raymdm.models.weights import PRECISIONS

ALL, FULL, GATHERED = "all positions", "index after head", "gather before head"


@dataclass(frozen=True)
class Plan:
    """Size of the measurement; `share` of the positions is predicted."""

    rows: int = 8
    length: int = 256
    width: int = 512
    vocabulary_size: int = 126464
    share: float = 0.25
    chunks: tuple[int, ...] = (16, 64, 128, 256)
    precision: str = "fp32"
    threads: int = 1
    blocks: int = 5

    @property
    def ways(self) -> list[str]:
        """Their names, in the order of the table."""
        return [ALL, FULL, GATHERED, *(f"  in chunks of {size}" for size in self.chunks)]


@dataclass(frozen=True)
class WayFigures:
    """One way.

    Attributes:
        name: one of `Plan.ways`.
        seconds: of forward and backward, median.
        peak: bytes beyond inputs and weight, at the most, gradients included.
        faster_than_all, faster_than_full: seconds of the first two ways over this one's.
        smaller_than_all, smaller_than_full: the same of the peaks.
    """

    name: str
    seconds: float
    peak: int
    faster_than_all: Ratio
    faster_than_full: Ratio
    smaller_than_all: float
    smaller_than_full: float


@dataclass(frozen=True)
class HeadFigures:
    """What was measured: on `device`, `predicted` of `positions`; the ways differ by `difference`
    (relative, the most of loss and gradients).
    """

    device: str
    plan: Plan
    positions: int
    predicted: int
    difference: float
    ways: list[WayFigures]

    @property
    def best(self) -> WayFigures:
        """The fastest of the chunked ways."""
        return min((way for way in self.ways if "chunks" in way.name), key=lambda way: way.seconds)


def bench(request: Request) -> Report:
    """Figures of the default sizes, or of those that were asked for."""
    gpu = default_device().type == "cuda"
    base: dict[str, Any] = {
        "model": {"hidden_size": 512},
        "training": {
            "batch_size": 64 if gpu else 8,
            "precision": "bf16" if gpu else "fp32",
        },
    }
    config = request.settings(base)
    chunk = config.training.head_chunk
    plan = Plan(
        rows=config.training.batch_size,
        width=config.model.hidden_size,
        chunks=Plan.chunks if chunk is None else (chunk,),
        precision=config.training.precision,
        threads=config.training.threads_per_worker,
        blocks=request.blocks or Plan.blocks,
    )
    figures = measure_head(plan)
    return Report([time_table(figures), memory_table(figures)], asdict(figures))


def time_table(figures: HeadFigures) -> Table:
    """Seconds of all ways, and how many times faster than the first two."""
    plan = figures.plan
    made = Table(
        title=f"time: {figures.predicted} of {figures.positions} positions predicted, width "
        f"{plan.width}, vocabulary {plan.vocabulary_size:,}, {plan.precision} on {figures.device}",
        caption=f"forward and backward, medians; how many times faster (quartiles); same loss and "
        f"gradients up to {figures.difference:.0e} (relative)",
    )
    made.add_column("way")
    for column in ("seconds", f"vs {ALL}", f"vs {FULL}"):
        made.add_column(column, justify="right")
    for way in figures.ways:
        cells = (f"{way.seconds:.3f}", str(way.faster_than_all), str(way.faster_than_full))
        made.add_row(way.name, *cells, style="bold" if way is figures.best else None)
    return made


def memory_table(figures: HeadFigures) -> Table:
    """Peak memory of all ways, and how many times smaller than that of the first two."""
    made = Table(
        title="peak memory",
        caption="beyond inputs and weight, gradients included, each in a fresh process; how many "
        f"times smaller; fastest {figures.best.name.strip()}",
    )
    made.add_column("way")
    for column in ("MB", f"vs {ALL}", f"vs {FULL}"):
        made.add_column(column, justify="right")
    for way in figures.ways:
        ratios = (f"{way.smaller_than_all:.1f}", f"{way.smaller_than_full:.1f}")
        style = "bold" if way is figures.best else None
        made.add_row(way.name, f"{way.peak / 1e6:,.0f}", *ratios, style=style)
    return made


def measure_head(plan: Plan) -> HeadFigures:
    """Memory of each way in a process of its own, then time of all in this one, in turn.

    Raises:
        RunError: the ways differ, or one ran out of memory.
    """
    torch.set_num_threads(plan.threads)
    peaks = [in_fresh_process(name, _peak, plan, name) for name in plan.ways]
    work = Work(plan)
    difference = work.difference()
    check_same_work(difference, TOLERANCE[plan.precision], "loss or gradients of the ways")
    _, seconds = alternate(
        [lambda name=name: work.step(name) for name in plan.ways],  # type: ignore[misc]
        blocks=plan.blocks,
        steps=1,
        warm_up=1,
    )
    return HeadFigures(
        device=str(work.device),
        plan=plan,
        positions=work.tokens.numel(),
        predicted=int(work.predicted.sum()),
        difference=difference,
        ways=[
            WayFigures(
                name=name,
                seconds=float(np.median(seconds[way])),
                peak=peaks[way],
                faster_than_all=ratio(seconds[0], seconds[way]),
                faster_than_full=ratio(seconds[1], seconds[way]),
                smaller_than_all=peaks[0] / peaks[way],
                smaller_than_full=peaks[1] / peaks[way],
            )
            for way, name in enumerate(plan.ways)
        ],
    )


class Work:
    """Hidden states, a head, targets, and what each cross-entropy counts: the same for all ways."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.device = plan, default_device()
        random = torch.Generator().manual_seed(0)
        shape, dtype = (plan.rows, plan.length), PRECISIONS[plan.precision]
        # Made as they stay: a larger copy on the way would count as this process's peak.
        hidden = torch.empty(*shape, plan.width, dtype=dtype)
        weight = torch.empty(plan.vocabulary_size, plan.width, dtype=dtype)
        hidden.normal_(generator=random)
        weight.normal_(0.0, 0.02, generator=random)
        self.tokens = torch.randint(plan.vocabulary_size, shape, generator=random).to(self.device)
        order = torch.rand(shape, generator=random).flatten().argsort()
        predicted = order < round(plan.share * order.numel())
        self.predicted = predicted.view(shape).to(self.device)
        self.factors = (torch.rand(shape, generator=random) + 0.5).to(self.device)
        self.factors *= self.predicted / self.predicted.sum()
        self.hidden = hidden.to(self.device).requires_grad_()
        self.head = Head(1, 1, bias=False)
        self.head.weight = torch.nn.Parameter(weight.to(self.device))

    def step(self, way: str) -> float:
        """Forward and backward; the loss."""
        self.hidden.grad = self.head.weight.grad = None
        loss = self._losses(way)()
        loss.backward()
        return loss.item()

    def difference(self) -> float:
        """The largest relative difference of loss or a gradient from those of the first way."""
        wanted = self._results(ALL)
        errors = [
            float((ours - theirs).float().norm() / theirs.float().norm())
            for way in self.plan.ways[1:]
            for ours, theirs in zip(self._results(way), wanted, strict=True)
        ]
        return float(np.max(errors))  # NaN, where one is.

    def _results(self, way: str) -> list[Tensor]:
        """Loss and gradients."""
        loss = torch.tensor(self.step(way))
        assert self.hidden.grad is not None
        assert self.head.weight.grad is not None
        return [loss, self.hidden.grad, self.head.weight.grad]

    def _losses(self, way: str) -> Callable[[], Tensor]:
        if way == ALL:
            return self._all_positions
        if way == FULL:
            return self._full_logits
        _, _, chunk = way.partition("chunks of ")
        self.head.chunk = int(chunk) if chunk else None
        return self._gathered

    # No name is kept for what is not needed again: a caller who does pays more.
    def _all_positions(self) -> Tensor:
        losses = _cross_entropies(self.head(self.hidden).flatten(0, 1), self.tokens.flatten())
        return (losses * self.factors.flatten()).sum()

    def _full_logits(self) -> Tensor:
        losses = _cross_entropies(
            self.head(self.hidden)[self.predicted], self.tokens[self.predicted]
        )
        return (losses * self.factors[self.predicted]).sum()

    def _gathered(self) -> Tensor:
        losses = self.head(self.hidden[self.predicted], self.tokens[self.predicted])
        return (losses * self.factors[self.predicted]).sum()


def _cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.to(widened(logits.dtype)), targets, reduction="none")


def _peak(plan: Plan, way: str) -> int:
    torch.set_num_threads(plan.threads)
    # What libraries load and set aside at first use is not the way's.
    Work(replace(plan, vocabulary_size=64)).step(way)
    work = Work(plan)
    return peak_beyond_now(lambda: work.step(way), work.device)
