"""Stream a small set and one four times as large as the object store, and compare memory.

A script and not a test: it needs a Ray cluster with an object store of its own size.
"""

import tempfile
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray._private.internal_api import memory_summary
from training_files import open_files

from raymdm.data.order import WindowOrder
from raymdm.data.rows import TrainingRows
from raymdm.data.stream import iterate_steps, stream_dataset

STORE = 80 * 10**6
LENGTH, ROWS = 1000, 2000  # a file takes 8 MB when it is decoded
BATCH = 50


def main() -> None:
    """Eight files, then forty."""
    ray.init("local", num_cpus=2, object_store_memory=STORE, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(40):
            write_file(Path(folder) / f"{number:02}.parquet", number)
        small = open_files([Path(folder) / "0[0-7].parquet"])
        large = open_files([Path(folder) / "*.parquet"])
        assert large.decoded_bytes == 5 * small.decoded_bytes > 4 * STORE
        peaks = [stream(rows) for rows in (small, large)]
        print(f"peak of a process: {peaks[0] / 1e6:.0f} MB, then {peaks[1] / 1e6:.0f} MB")
        assert peaks[1] < peaks[0] + 60e6, "memory grows with the set"
        summary = memory_summary(ray.get_runtime_context().gcs_address, stats_only=True)
        assert "Spilled" not in summary, summary
    ray.shutdown()


def write_file(path: Path, number: int) -> None:
    tokens = np.repeat(np.arange(ROWS) % 250 + number, LENGTH).astype(np.int32)
    ids = pa.ListArray.from_arrays(np.arange(ROWS + 1, dtype=np.int32) * LENGTH, tokens)
    pq.write_table(pa.table({"input_ids": ids, "prompt_length": np.zeros(ROWS, np.int64)}), path)


def stream(rows: TrainingRows) -> int:
    """An epoch for one worker; the most memory that any process held of its own."""
    counts = tuple(fragment.rows for fragment in rows.fragments)
    order = WindowOrder(0, counts, BATCH, blocks=3)
    dataset = stream_dataset(rows, order, 0, order.steps_per_epoch, 1, rows_per_block=500)
    dataset.context.execution_options.preserve_order = True
    (shard,) = dataset.streaming_split(1, equal=True)
    seen, peak = 0, 0
    for step in iterate_steps(shard.iter_batches, order, 0, 1):
        seen += sum(map(len, step.input_ids))
        peak = max(peak, *map(own_bytes, processes()))
    assert seen == rows.tokens
    return peak


def processes() -> list[psutil.Process]:
    """The one that streams and the workers, not Ray's own daemons."""
    here = psutil.Process()
    return [here, *(p for p in here.children(recursive=True) if p.name().startswith("ray::"))]


def own_bytes(process: psutil.Process) -> int:
    """Resident memory, the object store's left out."""
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0
    return int(memory.rss - memory.shared)


if __name__ == "__main__":
    main()
