"""Workers without Ray: a process each, some of them together in one process group."""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch.distributed
import torch.multiprocessing

from raymdm.config import Config
from raymdm.data.stream import StepRows, read_steps
from raymdm.training import RunDirectory, train_worker
from raymdm.training.checkpoint import Checkpoints
from raymdm.training.job import make_job


def train_in_processes(
    configs: Sequence[Config], workers: int, folder: Path, stop: int | None = None
) -> None:
    """Train these runs at the same time, each with so many workers, until their end.

    Args:
        configs: of the runs; their run directories exist.
        workers: processes of each run.
        folder: for the files by which the processes of a run find each other.
        stop: end before the step with this index, as a kill would.
    """
    stores = [str(folder / f"store-{workers}-{stop}-{run}") for run in range(len(configs))]
    contents = [config.model_dump() for config in configs]
    arguments = (contents, workers, stores, stop)
    torch.multiprocessing.spawn(_work, arguments, nprocs=workers * len(configs))


def _work(
    process: int,
    contents: list[dict[str, Any]],
    workers: int,
    stores: list[str],
    stop: int | None,
) -> None:
    run, rank = divmod(process, workers)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(workers), DS_ACCELERATOR="cpu"
    )
    group = torch.distributed.FileStore(stores[run], workers)
    torch.distributed.init_process_group("gloo", store=group, rank=rank, world_size=workers)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    config = Config.model_validate(contents[run])
    job = make_job(config, RunDirectory(config.run_dir))

    class Cut(Exception):
        pass

    def batches(start: int) -> Iterator[StepRows]:
        for rows in read_steps(job.train, job.order, start, job.steps, rank, workers):
            if rows.step == stop:
                raise Cut
            yield rows

    with contextlib.suppress(Cut), warnings.catch_warnings(action="ignore"):
        train_worker(job, batches, Checkpoints.direct(config, job.run))
    torch.distributed.destroy_process_group()
