"""Chunks of work: the same records by any number of actors, and one clear line when they fail."""

import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import torch

from raymdm.config import Config, load_config
from raymdm.decoding.batching import batches
from raymdm.errors import ClusterError, DataError, RaymdmError, RunError
from raymdm.evaluations.pool import _Actor, run_chunks


def config(*, actors: int | None = None, batch_size: int = 4, cpus: float = 0.5) -> Config:
    return load_config(
        overrides=[
            f"evaluation.actors={'null' if actors is None else actors}",
            f"evaluation.batch_size={batch_size}",
            "training.threads_per_worker=2",
            f"cluster.cpus_per_worker={cpus}",
        ]
    )


@dataclass(frozen=True)
class Squares:
    """Work on numbers, which can be told to fail: at a number, and how."""

    fail_at: int | None = None
    error: type[Exception] = ValueError
    die_once: Path | None = None
    log: list[int] = field(default_factory=list)

    def __call__(self) -> Callable[[list[int]], list[dict[str, Any]]]:
        return self.square

    def square(self, numbers: list[int]) -> list[dict[str, Any]]:
        self.log.append(len(numbers))
        if self.fail_at in numbers:
            raise self.error("no squares today\nand more")
        if self.die_once is not None and not self.die_once.exists():
            self.die_once.write_text("")
            os._exit(1)
        return [{"number": n, "square": n * n, "threads": torch.get_num_threads()} for n in numbers]


def squares(chunks: Any) -> dict[int, int]:
    return {record["number"]: record["square"] for chunk in chunks for record in chunk}


def test_chunks_hold_items_of_like_length_the_longest_first():
    assert batches([3, 9, 1, 9, 4], 2) == [[1, 3], [4, 0], [2]]
    assert batches([], 2) == []


def test_every_item_is_done_once_in_chunks_of_the_batch_size():
    work = Squares()
    found = list(run_chunks(work, range(10), config(batch_size=4), length=lambda n: n))
    assert work.log == [4, 4, 2]
    assert [record["number"] for chunk in found for record in chunk] == list(range(9, -1, -1))


def test_chunks_come_as_they_are_done():
    work = Squares(fail_at=0)
    chunks = run_chunks(work, range(8), config(batch_size=4), length=lambda n: n)
    assert [record["number"] for record in next(chunks)] == [7, 6, 5, 4]
    with pytest.raises(RunError):
        next(chunks)


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (
            ValueError,
            RunError,
            r"^a chunk of 3 items failed \(ValueError: no squares today\)[^\n]*$",
        ),
        (DataError, DataError, "no squares today"),
    ],
)
def test_a_failing_chunk_is_one_line_and_keeps_a_users_error(
    error: type[Exception], raised: type[RaymdmError], message: str
):
    with pytest.raises(raised, match=message):
        list(run_chunks(Squares(1, error), range(3), config(), length=lambda n: n))


def test_no_items_are_no_work():
    assert list(run_chunks(Squares(), [], config(actors=2), length=lambda n: n)) == []


def test_an_actor_gives_an_error_as_a_value():
    """Raised in an actor, it would be wrapped by Ray, and the chunk tried again."""
    block = pa.table({"bytes": [pickle.dumps([0, 1])]})
    answer = _Actor(Squares(1, DataError), 1)(block)
    with pytest.raises(DataError, match="no squares today"):
        raise pickle.loads(answer["bytes"].to_pylist()[0])


@pytest.mark.ray
def test_actors_give_the_same_records_and_a_killed_one_comes_back(
    ray_cluster: None, tmp_path: Path
):
    # Workers cannot import a test's module.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    work = Squares(die_once=tmp_path / "died")
    records = list(run_chunks(work, range(20), config(actors=2), length=lambda n: n % 5))
    assert (tmp_path / "died").exists()
    here = run_chunks(Squares(), range(20), config(), length=lambda n: n % 5)
    assert squares(records) == squares(here)
    assert {record["threads"] for chunk in records for record in chunk} == {2}


@pytest.mark.ray
def test_actors_that_cannot_fit_are_refused(ray_cluster: None):
    asked = config(actors=3, cpus=1.0, batch_size=1)
    with pytest.raises(ClusterError, match=r"3 workers of 1 CPUs.*smaller evaluation\.actors"):
        list(run_chunks(Squares(), range(3), asked, length=lambda n: n))
