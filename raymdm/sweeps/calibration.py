"""How long a step of a configuration takes here: some real training steps in this process."""

import tempfile
import time
from statistics import fmean

import torch

from raymdm.config import Config
from raymdm.data.stream import read_steps
from raymdm.diffusion.compose import needs_probe
from raymdm.errors import ConfigurationError
from raymdm.sweeps.arms import with_training
from raymdm.training import RunDirectory
from raymdm.training.checkpoint import Checkpoints
from raymdm.training.engine import process_group_of_one
from raymdm.training.job import make_job
from raymdm.training.worker import Worker


def seconds_per_step(config: Config, steps: int) -> float:
    """Mean seconds of `steps` training steps of one worker, after a first one that is not counted.

    Of several workers it is one worker's share of the rows, without what they say to each other.
    Nothing is probed, validated or written: the density of the mask rate is one that needs no
    probe, which changes next to nothing in the time of a step.

    Raises:
        ConfigurationError: the workers have GPUs and this process has none.
        UserError: as a run of this configuration would.
    """
    if config.cluster.gpus_per_worker and not torch.cuda.is_available():
        raise ConfigurationError(
            "the plan measures training steps in this process, which has no GPU "
            "(cluster.gpus_per_worker is 1); run it where there is one, or give --rate"
        )
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(_measured(config, folder, steps), RunDirectory(folder))
        with process_group_of_one(gpu=config.cluster.gpus_per_worker > 0):
            worker = Worker(job, Checkpoints.direct(job.config, job.run))
            rows = read_steps(job.train, job.order, 0, steps + 1)
            seconds = []
            for _ in range(steps + 1):
                started = time.perf_counter()
                worker.step(worker.wait_for(rows))
                seconds.append(time.perf_counter() - started)
    return fmean(seconds[1:])


def _measured(config: Config, folder: str, steps: int) -> Config:
    """The configuration as one worker trains it, with nothing beside the steps."""
    section = config.estimator
    if needs_probe(section) and section.density.file is None:
        plain = section.density.model_copy(update={"kind": "power"})
        section = section.model_copy(update={"density": plain})
    cluster = config.cluster.model_copy(update={"workers": 1, "min_workers": None})
    alone = config.model_copy(
        update={
            "run_dir": folder,
            "keep": "metrics",
            "estimator": section,
            "cluster": cluster,
            "checkpoints": config.checkpoints.model_copy(update={"storage": None}),
            "wandb": config.wandb.model_copy(update={"mode": "disabled"}),
        }
    )
    return with_training(
        alone,
        batch_size=config.training.batch_size // config.cluster.workers,
        # One more than are done: the last one would be validated.
        steps=steps + 2,
        epochs=None,
        validate_every=0,
        validation_rows=1,
        checkpoint_every=0,
    )
