"""Rows of a run in training order: through Ray Data for workers of a cluster, or read directly.

Each streamed block is a single row that holds one worker's share of a range of steps. Ray Data can
neither split nor merge such blocks, so its splitter hands them out in turn, one to each worker.
Inside, every training row carries its step and slot: a worker checks that it got rows of the step
it is at, whatever share of them. Because a step's rows are a pure function of (seed, step),
resuming means starting the stream at a later step, on any number of workers; nothing that was
consumed is read again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata

from raymdm.data.fragment import Fragment, read_table
from raymdm.data.order import Steps
from raymdm.data.rows import FragmentCache, Load, TrainingRows, present_marks
from raymdm.data.schema import MARKS
from raymdm.errors import DataError, RunError

_BLOCK_BYTES = 32 * 2**20
_STORE_SHARE = 1 / 3
"""Of a node's object store, what all rows may take under `data.shuffle: full`; the rest is for the
blocks on their way."""


@dataclass(frozen=True)
class StepRows:
    """One worker's rows of one optimiser step, by slot.

    Attributes:
        step: counted from 0.
        epochs: int64[B], counted from 0; equal but in a mixture.
        slots: int64[B], places in the global batch.
        samples: int64[B], sample numbers.
        input_ids: B token rows.
        prompt_lengths: int64[B].
        delimiters: of every row the positions of its answer delimiters.
        syntax: of every row the positions of its prompt's syntax.
    """

    step: int
    epochs: np.ndarray
    slots: np.ndarray
    samples: np.ndarray
    input_ids: list[np.ndarray]
    prompt_lengths: np.ndarray
    delimiters: list[list[int]]
    syntax: list[list[int]]


def read_steps(
    rows: TrainingRows, order: Steps, start: int, stop: int, part: int = 0, parts: int = 1
) -> Iterator[StepRows]:
    """The plain path: one share of the steps start..stop-1, read from the files in this process.

    Under `full` all rows that were read stay in memory, under `window` those of one window.
    """
    cache = FragmentCache(rows)
    for step in range(start, stop):
        _keep_windows(cache, order, range(step, step + 1))
        yield _step_rows(_share_table(rows, order, step, step + 1, part, parts, cache), order)


def stream_dataset(
    rows: TrainingRows, order: Steps, start: int, stop: int, workers: int, rows_per_block: int
) -> Dataset:
    """The steps start..stop-1 as a Ray Data set to be split equally over `workers`.

    Iterate it with `preserve_order`, without locality hints (`iterate_steps`).

    Raises:
        DataError: the rows are too many for a full shuffle on this cluster.
    """
    check_fits(rows, order)
    source = _StepsSource(rows, order, start, stop, workers, rows_per_block)
    dataset = ray.data.read_datasource(source, override_num_blocks=len(source.ranges))
    # Every table that a read task yields is a block then, however small.
    dataset.context.target_max_block_size = 1
    return dataset


def iterate_steps(
    batches: Callable[..., Any], order: Steps, start: int, workers: int
) -> Iterator[StepRows]:
    """A worker's rows step by step, from the `iter_batches` of its shard of `stream_dataset`.

    Raises:
        RunError: rows of another step arrived; the stream was not split as it must be.
    """
    size, expected = order.batch_size // workers, start
    for block in batches(batch_size=1, batch_format="pyarrow", prefetch_batches=2):
        table = pa.Table.from_struct_array(block["rows"].combine_chunks().flatten())
        for first in range(0, len(table), size):
            part = table.slice(first, size)
            steps = set(part["step"].to_pylist())
            if steps != {expected}:
                raise RunError(
                    f"the data stream gave rows of steps {sorted(steps)} at step {expected}; "
                    "resume from the last checkpoint, and please report this"
                )
            yield _step_rows(part, order)
            expected += 1


def check_fits(rows: TrainingRows, order: Steps) -> None:
    """Check that a full shuffle fits into the object store of every node that reads.

    Raises:
        DataError: it does not; says what the rows take and what there is.
    """
    if order.until(0) is not None:
        return
    stores = [
        node["Resources"].get("object_store_memory", 0)
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU")
    ]
    smallest = min(stores, default=0)
    if rows.decoded_bytes > _STORE_SHARE * smallest:
        raise DataError(
            f"{rows.path}: the training rows take {rows.decoded_bytes / 2**20:,.0f} MiB, and "
            f"data.shuffle full may use a third of Ray's object store, which has "
            f"{smallest / 2**20:,.0f} MiB; set data.shuffle to window"
        )


class _StepsSource(Datasource):
    """One read task for each range of steps that needs the same fragments; each yields its blocks
    in turn, one for every worker and part of the range.
    """

    def __init__(
        self, rows: TrainingRows, order: Steps, start: int, stop: int, workers: int, block_rows: int
    ) -> None:
        super().__init__()
        row_bytes = rows.decoded_bytes / len(rows)
        block_rows = max(1, min(block_rows, int(_BLOCK_BYTES / row_bytes)))
        steps = max(1, block_rows * workers // order.batch_size)
        self.ranges = list(_ranges(order, start, stop, steps))
        loaded = None
        if order.until(start) is None:
            # Tasks, so that a copy that is lost is made again.
            loaded = [_load_fragment.remote(fragment) for fragment in rows.fragments]
        self.shared = ray.put(_Shared(rows, order, workers, steps, loaded))

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown: the block count is chosen here, not from a size."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """The ranges in order; `parallelism` is ignored, the order fixes them."""
        return [
            ReadTask(
                _RangeReader(self.shared, *steps),
                BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None),
                per_task_row_limit=per_task_row_limit,
            )
            for steps in self.ranges
        ]


@dataclass(frozen=True)
class _Shared:
    rows: TrainingRows
    order: Steps
    workers: int
    steps: int
    """Of a block."""
    loaded: list[ray.ObjectRef] | None
    """Every fragment, where any step may need any of them."""


@dataclass(frozen=True)
class _RangeReader:
    shared: ray.ObjectRef
    first: int
    stop: int

    def __call__(self) -> Iterator[pa.Table]:
        shared: _Shared = ray.get(self.shared)
        cache = FragmentCache(shared.rows)
        load: Load = cache
        if shared.loaded is not None:
            refs = shared.loaded
            load = lambda number: ray.get(refs[number])  # noqa: E731
        for first in range(self.first, self.stop, shared.steps):
            stop = min(first + shared.steps, self.stop)
            _keep_windows(cache, shared.order, range(first, stop))
            for part in range(shared.workers):
                table = _share_table(
                    shared.rows, shared.order, first, stop, part, shared.workers, load
                )
                rows = table.to_struct_array().combine_chunks()
                yield pa.table({"rows": pa.ListArray.from_arrays([0, len(rows)], rows)})


@ray.remote(num_cpus=1)
def _load_fragment(fragment: Fragment) -> pa.Table:
    return read_table(fragment)


def _ranges(order: Steps, start: int, stop: int, steps: int) -> Iterator[tuple[int, int]]:
    """First and last step + 1 of every read task."""
    while start < stop:
        end = order.until(start) or start + steps
        yield start, min(end, stop)
        start = end


def _keep_windows(cache: FragmentCache, order: Steps, steps: range) -> None:
    """Let the cache forget what these steps do not need."""
    needed = [fragments for step in steps if (fragments := order.fragments(step)) is not None]
    if needed:
        cache.keep(np.unique(np.concatenate(needed)))


def _share_table(
    rows: TrainingRows, order: Steps, first: int, stop: int, part: int, parts: int, load: Load
) -> pa.Table:
    """One share of the steps first..stop-1: the rows' columns, their step, slot and sample."""
    shares = [order.share(step, part, parts) for step in range(first, stop)]
    samples = np.concatenate([samples for _, samples in shares])
    table = present_marks(rows.take(samples, load), rows.marks)
    slots = np.concatenate([slots for slots, _ in shares])
    steps: np.ndarray = np.repeat(np.arange(first, stop), order.batch_size // parts)
    for name, column in (("sample", samples), ("slot", slots), ("step", steps)):
        table = table.add_column(0, name, pa.array(column, pa.int64()))
    return table


def _step_rows(table: pa.Table, order: Steps) -> StepRows:
    """A share of one step as its worker takes it."""
    step = table["step"][0].as_py()
    # Copies: Arrow's own memory is read-only, which torch warns of.
    slots, samples, prompts = (
        table[name].to_numpy().copy() for name in ("slot", "sample", "prompt_length")
    )
    ids = table["input_ids"].combine_chunks()
    ends = np.cumsum(ids.value_lengths().to_numpy())
    tokens = ids.flatten().to_numpy().astype(np.int64)
    delimiters, syntax = (
        [marks or [] for marks in table[mark].to_pylist()]
        if mark in table.column_names
        else [[] for _ in slots]
        for mark in MARKS
    )
    return StepRows(
        step,
        order.epochs(step)[slots],
        slots,
        samples,
        np.split(tokens, ends[:-1]),
        prompts,
        delimiters,
        syntax,
    )
