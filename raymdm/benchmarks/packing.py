"""Real tokens per second of rows that are padded, grouped by length, or packed.

The rows of one optimiser step are shared among forwards in four ways: in order, all padded to the
longest of the *step* (a batch that is collated once and then cut into micro-batches, the common
practice); in order, each forward padded to its own longest row (`batching: padded`); rows of like
length together (`bucketed`); without padding (`packed`). Rows, masks and losses are the same, and
only predicted positions reach the head in any of them.
"""

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from raymdm.benchmarks.alternation import TOLERANCE, Ratio, alternate, check_same_work, ratio
from raymdm.benchmarks.device import default_device
from raymdm.benchmarks.request import Report, Request
from raymdm.benchmarks.rows import write_random_rows
from raymdm.benchmarks.step import ONE_BILLION
from raymdm.config import Config, read_config
from raymdm.data.batching import Batching, micro_batches
from raymdm.data.collate import collate_rows
from raymdm.data.jsonl import index_rows
from raymdm.data.manifest import read_manifest
from raymdm.data.order import Order
from raymdm.diffusion import Rows
from raymdm.diffusion.cross_entropy import masked_cross_entropy
from raymdm.diffusion.noise import mask_noise, time_noise
from raymdm.models import Execution, SpecialTokens, build_model
from raymdm.models.initial import shape_from_config
from raymdm.models.weights import PRECISIONS


@dataclass(frozen=True)
class Plan:
    """Size of the measurement: timed steps, after some to warm up."""

    blocks: int = 12
    warm_up: int = 1


@dataclass(frozen=True)
class Way:
    """How a step's rows become forwards; `cut` pads to the longest of the forward only."""

    name: str
    batching: Batching
    cut: bool = True


WAYS = (
    Way("longest of the step", "padded", cut=False),
    Way("padded", "padded"),
    Way("bucketed", "bucketed"),
    Way("packed", "packed"),
)


@dataclass(frozen=True)
class WayFigures:
    """One way.

    Attributes:
        name: of `WAYS`.
        speed: real tokens per second, median.
        faster: speed over that of the first way, step by step.
        computed: positions computed for each real token.
    """

    name: str
    speed: float
    faster: Ratio
    computed: float


@dataclass(frozen=True)
class PackingFigures:
    """What was measured, on `rows` per step in forwards of `micro_batch`; lengths in tokens."""

    device: str
    precision: str
    data: str
    parameters: int
    rows: int
    micro_batch: int
    mean_length: float
    sd_length: float
    difference: float
    ways: list[WayFigures]


def bench(request: Request) -> Report:
    """Figures of the prepared data that was named, or of rows as long as GSM8K's."""
    gpu = default_device().type == "cuda"
    drawn = request.folder / "data"
    base: dict[str, Any] = {
        **({"model": ONE_BILLION} if gpu else read_config(["models/5m"])),
        "data": {"folder": str(drawn)},
        "training": {
            "batch_size": 32,
            "micro_batch_size": 8,
            "precision": "bf16" if gpu else "fp32",
        },
    }
    config = request.settings(base)
    data = Path(config.data.folder)
    if data == drawn:
        write_gsm8k_lengths(data)
    plan = Plan(blocks=request.blocks or Plan.blocks)
    name = "lengths drawn like GSM8K's" if data == drawn else data.name
    figures = measure_packing(config, plan, name)
    return Report([table(figures)], asdict(figures))


def write_gsm8k_lengths(folder: Path, rows: int = 4096, vocabulary_size: int = 4096) -> None:
    """Random rows whose lengths are log-normal with mean 194 and sd 72, a third of them prompt.

    As GSM8K's training rows have it (194.4, 72.1; prompts 67.0) with a byte-level BPE of 4096.
    """
    lengths = np.random.default_rng(0).lognormal(5.205, 0.358, rows).round().astype(int)
    write_random_rows(
        folder,
        lengths=lengths,
        prompt_lengths=(0.345 * lengths).astype(int),
        vocabulary_size=vocabulary_size,
    )


def table(figures: PackingFigures) -> Table:
    """All ways, against the first."""
    made = Table(
        title=f"{figures.data}: {figures.mean_length:.0f} tokens a row (sd {figures.sd_length:.0f})"
        f", {figures.rows} rows a step in forwards of {figures.micro_batch}; "
        f"{figures.parameters / 1e6:.1f}M parameters, {figures.precision} on {figures.device}",
        caption="forward and backward, median over steps (quartiles); same losses up to "
        f"{figures.difference:.0e} (relative)",
    )
    made.add_column("padding")
    for column in ("real tokens/s", "ratio (quartiles)", "computed/real"):
        made.add_column(column, justify="right")
    for way in figures.ways:
        made.add_row(way.name, f"{way.speed:,.0f}", str(way.faster), f"{way.computed:.2f}")
    return made


def measure_packing(config: Config, plan: Plan, name: str) -> PackingFigures:
    """Forward and backward of the same steps in every way, in turn.

    Args:
        config: model, training (batch sizes, precision, head_chunk, activation_checkpointing,
            threads_per_worker), seed, and the prepared folder.
        plan: how much.
        name: of the data, for the table.

    Raises:
        RunError: the ways' losses differ.
        DataError: no prepared folder, or too few rows for a step.
    """
    torch.set_num_threads(config.training.threads_per_worker)
    work = Work(config, plan.warm_up + plan.blocks)
    losses, seconds = alternate(
        [work.steps(way).__next__ for way in WAYS],
        blocks=plan.blocks,
        steps=1,
        warm_up=plan.warm_up,
    )
    difference = float(np.max(np.abs(losses / losses[0] - 1)))
    check_same_work(difference, TOLERANCE[config.training.precision], "losses of the ways")
    tokens = np.array([int(batch.lengths.sum()) for batch in work.batches[plan.warm_up :]])
    lengths = work.index.lengths
    return PackingFigures(
        device=str(work.device),
        precision=config.training.precision,
        data=name,
        parameters=sum(parameter.numel() for parameter in work.model.parameters()),
        rows=config.training.batch_size,
        micro_batch=work.micro_batch,
        mean_length=float(lengths.mean()),
        sd_length=float(lengths.std()),
        difference=difference,
        ways=[
            WayFigures(
                name=way.name,
                speed=float(np.median(tokens / seconds[number])),
                faster=ratio(seconds[0], seconds[number]),
                computed=work.computed(way),
            )
            for number, way in enumerate(WAYS)
        ],
    )


@dataclass(frozen=True)
class Batch:
    """The rows of a step, padded to the longest, bool[B, L] the masked ones, int64[B] lengths."""

    rows: Rows
    masked: torch.Tensor
    lengths: np.ndarray


class Work:
    """A model and the first steps of a run, with the rates and masks of Standard."""

    def __init__(self, config: Config, steps: int) -> None:
        training, self.seed, self.device = config.training, config.seed, default_device()
        folder = Path(config.data.folder)
        self.manifest = read_manifest(folder)
        file = folder / self.manifest.splits["train"].file
        self.index = index_rows(file, self.manifest.vocabulary_size)
        tokens = SpecialTokens(
            self.manifest.mask_token_id, self.manifest.eos_token_id, self.manifest.pad_token_id
        )
        shape = shape_from_config(
            config.model, vocabulary_size=self.manifest.vocabulary_size, tokens=tokens
        )
        model = build_model(shape, config.seed, config.model.initializer_std)
        self.model = model.to(self.device, PRECISIONS[training.precision])
        self.model.head.chunk = training.head_chunk
        self.recompute = training.activation_checkpointing
        self.micro_batch = training.micro_batch_size or training.batch_size
        order = Order(config.seed, len(self.index), training.batch_size)
        self.batches = [self._batch(order, step) for step in range(steps)]

    def steps(self, way: Way) -> Iterator[float]:
        """One step after the other, each forward and backward; its loss per predicted token."""
        for number in itertools.count():
            batch = self.batches[number]
            packed = way.batching == "packed"
            self.model.execution = Execution(packed=packed, recompute=self.recompute)
            self.model.zero_grad()
            total = 0.0
            for rows, masked in self._forwards(batch, way):
                sums = masked_cross_entropy(
                    self.model,
                    rows.input_ids,
                    rows.attention_mask,
                    masked,
                    self.manifest.mask_token_id,
                )
                loss = sums.sum() / batch.masked.sum()
                loss.backward()
                total += loss.item()
            yield total

    def computed(self, way: Way) -> float:
        """Positions that pass through the model for each real token."""
        if way.batching == "packed":
            return 1.0
        parts = [rows for batch in self.batches for rows, _ in self._forwards(batch, way)]
        positions = sum(rows.input_ids.numel() for rows in parts)
        return positions / sum(int(rows.attention_mask.sum()) for rows in parts)

    def _forwards(self, batch: Batch, way: Way) -> Iterator[tuple[Rows, torch.Tensor]]:
        for chosen in micro_batches(batch.lengths, self.micro_batch, way.batching):
            rows = batch.rows.take(chosen) if way.cut else _uncut(batch.rows, chosen)
            masked = batch.masked[chosen, : rows.input_ids.shape[1]]
            yield rows.to(self.device), masked.to(self.device)

    def _batch(self, order: Order, step: int) -> Batch:
        samples = order.samples(step)
        rows = collate_rows(
            self.index.read(samples),
            samples,
            pad_token_id=self.manifest.pad_token_id,
            eos_token_id=self.manifest.eos_token_id,
        )
        t = torch.from_numpy(time_noise(self.seed, step, len(rows)))[:, None]
        noise = mask_noise(self.seed, order.epoch(step), rows.samples, rows.input_ids.shape[1])[0]
        return Batch(rows, rows.eligible & (noise < t), self.index.lengths[samples])


def _uncut(rows: Rows, chosen: list[int]) -> Rows:
    """These rows as long as the longest of all."""
    return Rows(
        rows.input_ids[chosen],
        rows.attention_mask[chosen],
        rows.eligible[chosen],
        [rows.samples[row] for row in chosen],
    )
