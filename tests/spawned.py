"""Several workers of a run without Ray: one process each, in one process group."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch.distributed
import torch.multiprocessing

from raymdm.config import Config
from raymdm.data.stream import StepRows, read_steps
from raymdm.training import RunDirectory, train_worker
from raymdm.training.checkpoint import Checkpoints
from raymdm.training.job import make_job


def train_in_processes(config: Config, workers: int, folder: Path, stop: int | None = None) -> None:
    """Train with so many workers until the end, or until rows of step `stop` would be read."""
    store = folder / f"store-{workers}-{stop}"
    arguments = (config.model_dump(), workers, str(store), stop)
    torch.multiprocessing.spawn(_work, arguments, nprocs=workers)


def _work(rank: int, content: dict, workers: int, store: str, stop: int | None) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(workers), DS_ACCELERATOR="cpu"
    )
    group = torch.distributed.FileStore(store, workers)
    torch.distributed.init_process_group("gloo", store=group, rank=rank, world_size=workers)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    config = Config.model_validate(content)
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
