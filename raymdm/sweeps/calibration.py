"""How long a step of an arm takes here: some real training steps in this process."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import torch

from raymdm.config import Config
from raymdm.data.stream import read_steps
from raymdm.diffusion.compose import needs_probe
from raymdm.diffusion.passes import step_passes
from raymdm.errors import ConfigurationError
from raymdm.sweeps.arms import with_training
from raymdm.sweeps.design import Trial, make_design
from raymdm.training import RunDirectory
from raymdm.training.checkpoint import Checkpoints
from raymdm.training.engine import process_group_of_one
from raymdm.training.job import make_job
from raymdm.training.run_directory import read_json, write_json
from raymdm.training.worker import Worker

CALIBRATION = "calibration.json"


Measure = Callable[[Config, int], float]
"""Seconds of a step of a configuration, from so many steps."""


def measure_arms(
    config: Config, steps: int, measure: Measure, watch: Callable[[str], None]
) -> dict[str, float]:
    """By arm, seconds of one row's forward and backward, from its first run of the design.

    Args:
        config: the sweep's.
        steps: training steps to measure on.
        measure: `seconds_per_step`, here or elsewhere.
        watch: told each arm before it is measured.
    """
    firsts: dict[str, Trial] = {}
    for trial in make_design(config):
        firsts.setdefault(trial.arm, trial)
    found = {}
    for arm, trial in firsts.items():
        watch(arm)
        of_a_step = step_passes(trial.config.estimator, trial.config.training.batch_size)
        found[arm] = measure(trial.config, steps) / of_a_step
    return found


def kept_calibration(sweep_dir: Path) -> dict[str, float] | None:
    """What `sweep.equalise: seconds` was measured to need, once and for all runs of the sweep."""
    return read_json(sweep_dir / CALIBRATION).get("seconds_per_pass")


def keep_calibration(sweep_dir: Path, seconds_per_pass: dict[str, float]) -> None:
    """Write it down."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    write_json(sweep_dir / CALIBRATION, {"seconds_per_pass": seconds_per_pass})


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
