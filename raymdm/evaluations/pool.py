"""Work on many items, chunk by chunk: in this process, or by a pool of Ray actors.

What an item's record says depends on the item alone (noise is addressed by its number), so neither
the chunks nor the number of actors change a result. Chunks hold items of like length, so that each
is a good batch; the longest come first: a model that does not fit with them fails at once, and
the actors end at about the same time.
"""

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import Any, TypeVar

import pyarrow as pa
import torch

from raymdm.cluster import check_cluster, start_ray
from raymdm.config import Config
from raymdm.decoding.batching import batches
from raymdm.errors import RaymdmError, RunError

Item = TypeVar("Item")
Record = dict[str, Any]
_LIVES = 3
"""How often a lost actor is started again, and a chunk done again: it gives the same records."""


def run_chunks(
    make_work: Callable[[], Callable[[list[Item]], list[Record]]],
    items: Sequence[Item],
    config: Config,
    *,
    length: Callable[[Item], int],
    verbose: bool = False,
) -> Iterator[list[Record]]:
    """The records of all items, a chunk at a time, in any order.

    Args:
        make_work: makes what turns items into their records; called once by each actor, which
            then holds the model. It and the items must be picklable.
        items: each knows its own number.
        config: `evaluation.actors` (None: this process does it all) and `batch_size`, the largest
            chunk; `cluster.*` and `training.threads_per_worker` for each actor.
        length: of an item, in tokens.
        verbose: show Ray's logs.

    Raises:
        ClusterError: the actors do not fit the cluster.
        UserError: what the work itself raises.
        RunError: the work fails in another way, or actors are lost again and again.
    """
    actors = config.evaluation.actors
    size = min(config.evaluation.batch_size, ceil(len(items) / (actors or 1)))
    chunks = batches([length(item) for item in items], max(1, size))
    parts = [[items[index] for index in chunk] for chunk in chunks]
    if not parts:
        return iter(())
    if actors is None:
        return _run_here(make_work, parts)
    return _run_on_ray(make_work, parts, config, min(actors, len(parts)), verbose)


def _run_here(make_work: Callable[[], Any], parts: list[list[Any]]) -> Iterator[list[Record]]:
    worker = _Worker(make_work)
    for part in parts:
        yield worker.records(part)


def _run_on_ray(
    make_work: Callable[[], Any],
    parts: list[list[Any]],
    config: Config,
    actors: int,
    verbose: bool,
) -> Iterator[list[Record]]:
    import ray.data

    cluster, threads = config.cluster, config.training.threads_per_worker
    with start_ray(cluster.address, verbose=verbose):
        check_cluster(
            actors,
            cluster.cpus_per_worker,
            cluster.gpus_per_worker,
            0,
            "set a smaller evaluation.actors or cluster.cpus_per_worker, or join a larger cluster",
        )
        # A block for each chunk, in the object store: an actor fetches those that it works on.
        # Pickled by this program for itself, as Ray does with arguments; nothing of it is stored.
        waiting = ray.data.from_arrow([_table(pickle.dumps(part)) for part in parts])
        done = waiting.map_batches(
            _Actor,
            fn_constructor_args=(make_work, threads),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
            num_cpus=cluster.cpus_per_worker,
            num_gpus=cluster.gpus_per_worker or None,
            max_restarts=_LIVES,
            max_task_retries=_LIVES,
        )
        done.context.enable_progress_bars = False
        if not verbose:
            _hide_log("ray.data")
        blocks = done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        try:
            for block in blocks:
                for outcome in block["bytes"].to_pylist():
                    yield _records(pickle.loads(outcome))
        except ray.exceptions.RayError as error:
            cause = error.as_instanceof_cause() if hasattr(error, "as_instanceof_cause") else error
            # Of an exception the last line says most, of Ray's own explanations the first sentence.
            reason = (str(cause).strip() or "no message").splitlines()[-1].split(". ")[0]
            raise RunError(
                f"an actor was lost ({type(cause).__name__}: {reason}); run the same command "
                "again, with a smaller evaluation.batch_size if memory is short"
            ) from error


class _Worker:
    """One process's work, made (a model is loaded) with the first chunk."""

    def __init__(self, make_work: Callable[[], Any]) -> None:
        self.make_work = make_work
        self.work: Callable[[list[Any]], list[Record]] | None = None

    def records(self, part: list[Any]) -> list[Record]:
        """Of a chunk. Raises RaymdmError, whatever went wrong."""
        try:
            if self.work is None:
                self.work = self.make_work()
            return self.work(part)
        except RaymdmError:
            raise
        except Exception as error:  # of a model, a tokenizer or a scorer that is not ours
            reason = (str(error).strip() or "no message").splitlines()[0]
            raise RunError(
                f"a chunk of {len(part)} items failed ({type(error).__name__}: {reason}); "
                "--verbose shows it all"
            ) from error


class _Actor:
    """One process of the pool, as Ray Data calls it."""

    def __init__(self, make_work: Callable[[], Any], threads: int) -> None:
        torch.set_num_threads(threads)
        self.worker = _Worker(make_work)

    def __call__(self, block: pa.Table) -> pa.Table:
        """A chunk's records, or the error that says why there are none."""
        (chunk,) = block["bytes"].to_pylist()
        try:
            outcome: Any = self.worker.records(pickle.loads(chunk))
        except RaymdmError as error:  # as a value: Ray would wrap it, and try again
            outcome = error
        return _table(pickle.dumps(outcome))


def _hide_log(name: str) -> None:
    """Keep a logger's stack traces in its files and off the terminal: one line says it here."""
    for handler in logging.getLogger(name).handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL + 1)


def _records(outcome: Any) -> list[Record]:
    if isinstance(outcome, RaymdmError):
        raise outcome
    return list(outcome)


def _table(content: bytes) -> pa.Table:
    return pa.table({"bytes": pa.array([content], pa.large_binary())})
