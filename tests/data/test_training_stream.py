"""Streamed rows are those that reading the files gives, and no fragment is read for nothing."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_files import data_section, open_files, random_rows, write_rows

from raymdm.data.mixture import make_order
from raymdm.data.order import Order, Steps, WindowOrder
from raymdm.data.rows import FragmentCache, TrainingRows
from raymdm.data.stream import StepRows, check_fits, iterate_steps, read_steps, stream_dataset
from raymdm.errors import DataError

ENDINGS = ("jsonl", "jsonl.gz", "parquet")


def write_files(folder: Path, count: int = 12, rows: int = 24) -> list[Path]:
    """Files of every kind by turns, each one fragment."""
    return [
        write_rows(folder / f"{n:02}.{ENDINGS[n % 3]}", random_rows(rows, seed=n), group=rows)
        for n in range(count)
    ]


def same(one: list[StepRows], other: list[StepRows]) -> None:
    assert [rows.step for rows in one] == [rows.step for rows in other]
    for left, right in zip(one, other, strict=True):
        for field in ("epochs", "slots", "samples", "prompt_lengths"):
            assert np.array_equal(getattr(left, field), getattr(right, field))
        assert all(map(np.array_equal, left.input_ids, right.input_ids))
        assert left.delimiters == right.delimiters
        assert left.syntax == right.syntax


def streamed(
    rows: TrainingRows, order: Steps, start: int, stop: int, workers: int
) -> list[list[StepRows]]:
    """What each of some workers gets, the one with the first slots first."""
    dataset = stream_dataset(rows, order, start, stop, workers, rows_per_block=20)
    dataset.context.execution_options.preserve_order = True

    def consume(shard: Any) -> list[StepRows]:
        return list(iterate_steps(shard.iter_batches, order, start, workers))

    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(consume, dataset.streaming_split(workers, equal=True)))
    return sorted(parts, key=lambda part: part[0].slots[0])


def check_streamed(rows: TrainingRows, order: Steps, start: int, stop: int, workers: int) -> None:
    for part, steps in enumerate(streamed(rows, order, start, stop, workers)):
        same(steps, list(read_steps(rows, order, start, stop, part, workers)))


def skipped(files: list[Path], order: Steps, start: int, stop: int) -> Iterator[Path]:
    """Files that only earlier steps need."""
    needed = {int(n) for step in range(start, stop) for n in order.samples(step) // 24}
    return (path for number, path in enumerate(files) if number not in needed)


@pytest.mark.ray
def test_a_resume_inside_a_window_reads_none_of_the_files_it_skips(
    ray_cluster: None, tmp_path: Path
) -> None:
    """Two workers; the files that are not needed any more are broken."""
    files = write_files(tmp_path)
    rows = open_files(files)
    order = WindowOrder(seed=4, fragment_rows=(24,) * 12, batch_size=8, blocks=3)
    start, stop = 22, order.steps_per_epoch
    assert order.until(start - 1) == order.until(start), "in the middle of a window"
    parts = [list(read_steps(rows, order, start, stop, part, 2)) for part in range(2)]
    broken = list(skipped(files, order, start, stop))
    assert len(broken) > 5
    for path in broken:
        path.write_bytes(b"broken")
    again = [list(read_steps(rows, order, start, stop, part, 2)) for part in range(2)]
    for one, other in zip(parts, again, strict=True):
        same(one, other)
    for one, other in zip(parts, streamed(rows, order, start, stop, 2), strict=True):
        same(one, other)
    with pytest.raises(DataError, match=r"cannot be read|not what it was"):
        list(read_steps(rows, order, 0, stop))


@pytest.mark.ray
@pytest.mark.parametrize(("shuffle", "workers"), [("window", 2), ("full", 1)])
def test_a_mixture_streams_what_reading_the_files_gives(
    ray_cluster: None, tmp_path: Path, shuffle: str, workers: int
) -> None:
    """Over epochs of both sources, from the middle of both, in windows of different lengths."""
    files = write_files(tmp_path)
    sources, weights = (files[:9], files[9:]), [2.0, 1.0]
    rows = open_files(*sources, weights=weights)
    section = data_section(*sources, weights=weights, shuffle=shuffle, window_blocks=2)
    order = make_order(section, rows, 3, 12)
    check_streamed(rows, order, 5, 45, workers)


def test_plain_reading_holds_the_fragments_of_one_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = open_files(write_files(tmp_path))
    order = WindowOrder(seed=4, fragment_rows=(24,) * 12, batch_size=8, blocks=3)
    loaded: list[int] = []
    held: list[int] = []
    load = TrainingRows.load

    class Watched(FragmentCache):
        def __call__(self, number: int) -> Any:
            table = super().__call__(number)
            held.append(len(self.held))
            return table

    def count(self: TrainingRows, number: int) -> Any:
        loaded.append(number)
        return load(self, number)

    monkeypatch.setattr("raymdm.data.stream.FragmentCache", Watched)
    monkeypatch.setattr(TrainingRows, "load", count)
    list(read_steps(rows, order, 0, order.steps_per_epoch))
    assert max(held) <= 4
    assert len(loaded) <= 12 + 4, "a window's edge is read by both sides, nothing else twice"


@pytest.mark.ray
def test_a_full_shuffle_of_more_than_a_third_of_the_object_store_is_refused(
    ray_cluster: None, tmp_path: Path
) -> None:
    rows = open_files(write_rows(tmp_path / "a.jsonl", random_rows(60)))
    order = Order(0, 60, 4)
    check_fits(rows, order)
    large = replace(rows, sources=((replace(rows.fragments[0], tokens=2**38),),))
    message = r"take 1,048,576 MiB, .* object store, which has [\d,]+ MiB; set data\.shuffle to win"
    with pytest.raises(DataError, match=message):
        stream_dataset(large, order, 0, 3, 1, 20)
    check_fits(large, WindowOrder(0, (60,), 4, 1))


@pytest.mark.slow
@pytest.mark.ray
def test_memory_does_not_grow_with_the_set_under_window() -> None:
    """A small object store in a cluster of its own; see `stream_in_little_memory.py`."""
    script = Path(__file__).with_name("stream_in_little_memory.py")
    subprocess.run([sys.executable, str(script)], check=True, timeout=540)
