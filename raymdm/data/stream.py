"""Rows of a run in training order: through Ray Data for workers of a cluster, or read directly.

Each streamed block holds one worker's share of a range of steps, so all blocks of a range are
equally large and Ray Data's splitter hands them out in turn, one to each worker. Every row carries
its step and slot: a worker checks that it got rows of the step it is at, whatever share of them.
Because a step's rows are a pure function of (seed, step), resuming means starting the stream at a
later step, on any number of workers; nothing that was consumed is read again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata

from raymdm.data.jsonl import RowIndex
from raymdm.data.order import Order
from raymdm.data.schema import MARKS
from raymdm.errors import RunError

_BLOCK_TOKENS = 8 * 2**20  # 32 MiB


@dataclass(frozen=True)
class StepRows:
    """One worker's rows of one optimiser step, by slot.

    Attributes:
        step: counted from 0.
        epoch: counted from 0.
        slots: int64[B], places in the global batch.
        samples: int64[B], sample numbers.
        input_ids: B token rows.
        prompt_lengths: int64[B].
        delimiters: of every row the positions of its answer delimiters.
        syntax: of every row the positions of its prompt's syntax.
    """

    step: int
    epoch: int
    slots: np.ndarray
    samples: np.ndarray
    input_ids: list[np.ndarray]
    prompt_lengths: np.ndarray
    delimiters: list[list[int]]
    syntax: list[list[int]]


def read_steps(
    index: RowIndex, order: Order, start: int, stop: int, part: int = 0, parts: int = 1
) -> Iterator[StepRows]:
    """The plain path: one share of the steps start..stop-1, read from the file in this process."""
    for step in range(start, stop):
        slots, samples = order.share(step, part, parts)
        rows = index.read(samples.tolist())
        yield StepRows(
            step,
            order.epoch(step),
            slots,
            samples,
            [np.array(row["input_ids"], dtype=np.int64) for row in rows],
            np.array([row["prompt_length"] for row in rows], dtype=np.int64),
            [row.get("delimiters", []) for row in rows],
            [row.get("syntax", []) for row in rows],
        )


def stream_dataset(
    index: RowIndex, order: Order, start: int, stop: int, workers: int, rows_per_block: int
) -> Dataset:
    """The steps start..stop-1 as a Ray Data set to be split equally over `workers`.

    Iterate it with `preserve_order`, without locality hints, in batches of batch_size / workers
    rows (`iterate_steps`).
    """
    source = _StepsSource(index, order, start, stop, workers, rows_per_block)
    return ray.data.read_datasource(source, override_num_blocks=len(source.blocks))


def iterate_steps(
    batches: Callable[..., Any], order: Order, start: int, workers: int
) -> Iterator[StepRows]:
    """A worker's rows step by step, from the `iter_batches` of its shard of `stream_dataset`.

    Raises:
        RunError: rows of another step arrived; the stream was not split as it must be.
    """
    size = order.batch_size // workers
    for expected, table in enumerate(
        batches(batch_size=size, batch_format="pyarrow", prefetch_batches=2, drop_last=True),
        start=start,
    ):
        columns = table.to_pydict()
        if set(columns["step"]) != {expected}:
            raise RunError(
                f"the data stream gave rows of steps {sorted(set(columns['step']))} at step "
                f"{expected}; resume from the last checkpoint, and please report this"
            )
        by_slot = np.argsort(columns["slot"])
        unmarked: list[list[int]] = [[]] * size
        delimiters, syntax = (columns.get(field, unmarked) for field in MARKS)
        yield StepRows(
            expected,
            order.epoch(expected),
            np.array(columns["slot"])[by_slot],
            np.array(columns["sample"])[by_slot],
            [np.array(columns["input_ids"][row], dtype=np.int64) for row in by_slot],
            np.array(columns["prompt_length"], dtype=np.int64)[by_slot],
            [delimiters[row] for row in by_slot],
            [syntax[row] for row in by_slot],
        )


class _StepsSource(Datasource):
    """One read task for each worker's share of each range of steps."""

    def __init__(
        self, index: RowIndex, order: Order, start: int, stop: int, workers: int, block_rows: int
    ) -> None:
        super().__init__()
        # Ray Data would split a block beyond its target size, and hand out uneven parts.
        block_rows = min(block_rows, max(1, _BLOCK_TOKENS // int(index.lengths.max())))
        steps = max(1, block_rows * workers // order.batch_size)
        self.order = order
        self.workers = workers
        self.index = ray.put(index)
        self.blocks = [
            (first, min(first + steps, stop), part)
            for first in range(start, stop, steps)
            for part in range(workers)
        ]

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown: the block count is chosen here, not from a size."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """The blocks in order; `parallelism` is ignored, the order fixes the blocks."""
        share = self.order.batch_size // self.workers
        return [
            ReadTask(
                _BlockReader(self.index, self.order, self.workers, *block),
                BlockMetadata(
                    num_rows=(block[1] - block[0]) * share,
                    size_bytes=None,
                    input_files=None,
                    exec_stats=None,
                ),
                per_task_row_limit=per_task_row_limit,
            )
            for block in self.blocks
        ]


@dataclass(frozen=True)
class _BlockReader:
    index: ray.ObjectRef
    order: Order
    workers: int
    first: int
    stop: int
    part: int

    def __call__(self) -> list[pa.Table]:
        index = ray.get(self.index)
        steps = read_steps(index, self.order, self.first, self.stop, self.part, self.workers)
        return [pa.concat_tables([_table(rows, index.marks) for rows in steps])]


def _table(rows: StepRows, marks: frozenset[str]) -> pa.Table:
    columns = {
        "step": pa.array([rows.step] * len(rows.slots), pa.int64()),
        "slot": pa.array(rows.slots, pa.int64()),
        "sample": pa.array(rows.samples, pa.int64()),
        "input_ids": pa.array([row.astype(np.int32) for row in rows.input_ids]),
        "prompt_length": pa.array(rows.prompt_lengths, pa.int64()),
    }
    # One schema for all blocks: a column is there if any row of the file has such marks.
    for field, positions in zip(MARKS, (rows.delimiters, rows.syntax), strict=True):
        if field in marks:
            columns[field] = pa.array(positions, pa.list_(pa.int32()))
    return pa.table(columns)
