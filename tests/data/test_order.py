"""Which rows make up a step depends on the seed and the step alone."""

import numpy as np
import pytest
from prepared import write_prepared
from training_files import open_files

from raymdm.data.order import Order
from raymdm.data.rows import TrainingRows
from raymdm.data.stream import StepRows, iterate_steps, read_steps, stream_dataset
from raymdm.errors import DataError, RunError


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> TrainingRows:
    folder = write_prepared(tmp_path_factory.mktemp("data") / "prepared")
    return open_files(folder / "train.jsonl")


def test_an_epoch_shows_every_row_at_most_once_and_the_next_in_another_order() -> None:
    order = Order(seed=1, rows=70, batch_size=16)
    first = np.concatenate([order.samples(step) for step in range(4)])
    second = np.concatenate([order.samples(step) for step in range(4, 8)])
    assert order.steps_per_epoch == 4
    assert len(set(first)) == 64
    assert order.epoch(3) == 0
    assert order.epoch(4) == 1
    assert not np.array_equal(first, second)


def test_shares_of_the_workers_make_up_the_global_batch() -> None:
    order = Order(seed=3, rows=50, batch_size=12)
    for parts in (1, 2, 3, 4):
        shares = [order.share(5, part, parts) for part in range(parts)]
        assert np.array_equal(np.concatenate([slots for slots, _ in shares]), np.arange(12))
        assert np.array_equal(np.concatenate([samples for _, samples in shares]), order.samples(5))


def test_seeds_have_different_orders() -> None:
    assert not np.array_equal(Order(0, 64, 64).samples(0), Order(1, 64, 64).samples(0))


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(DataError, match="7 training rows do not fill one global batch of 8"):
        Order(seed=0, rows=7, batch_size=8)


def _same(one: list[StepRows], other: list[StepRows]) -> None:
    assert [rows.step for rows in one] == [rows.step for rows in other]
    for left, right in zip(one, other, strict=True):
        assert np.array_equal(left.epochs, right.epochs)
        assert np.array_equal(left.slots, right.slots)
        assert np.array_equal(left.samples, right.samples)
        assert np.array_equal(left.prompt_lengths, right.prompt_lengths)
        assert all(map(np.array_equal, left.input_ids, right.input_ids))


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_ray_data_streams_what_reading_the_file_gives(
    ray_cluster: None, index: TrainingRows, workers: int
) -> None:
    """From the middle of an epoch over two epoch boundaries, in blocks of uneven step counts."""
    from concurrent.futures import ThreadPoolExecutor

    order = Order(seed=5, rows=len(index), batch_size=16)
    start, stop = 3, 14
    dataset = stream_dataset(index, order, start, stop, workers, rows_per_block=24)
    dataset.context.execution_options.preserve_order = True
    shards = dataset.streaming_split(workers, equal=True)

    def consume(shard: object) -> list[StepRows]:
        return list(iterate_steps(shard.iter_batches, order, start, workers))  # type: ignore[attr-defined]

    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(consume, shards))
    slots = [np.concatenate([part[0].slots for part in parts])]
    assert sorted(slots[0].tolist()) == list(range(16))
    by_first_slot = sorted(parts, key=lambda part: part[0].slots[0])
    for number, part in enumerate(by_first_slot):
        _same(part, list(read_steps(index, order, start, stop, number, workers)))


def test_rows_of_another_step_are_noticed(index: TrainingRows) -> None:
    import pyarrow as pa

    order = Order(seed=5, rows=len(index), batch_size=4)
    row = {"step": 7, "slot": 0, "sample": 0, "input_ids": [1], "prompt_length": 0}
    table = pa.table({"rows": [[row] * 4]})
    with pytest.raises(RunError, match=r"rows of steps \[7\] at step 6"):
        next(iterate_steps(lambda **_: [table], order, 6, 1))
