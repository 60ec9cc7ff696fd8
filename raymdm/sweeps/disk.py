"""Bytes that a trial leaves on disk, and those that it needs until it is scored."""

from math import lcm

from raymdm.config import Config
from raymdm.config.model import LoraSection
from raymdm.diagnosis.parameters import count_parameters
from raymdm.models.weights import PRECISIONS
from raymdm.training.job import Job

METRICS = 120
"""Bytes of a step's row in `metrics.parquet`, about."""


def bytes_kept(config: Config, job: Job) -> float:
    """What stays of a trial: its metrics, and the model and checkpoints that `keep` holds."""
    metrics = float(METRICS * job.steps)
    if config.keep == "metrics":
        return metrics
    every = config.training.checkpoint_every
    # Where none is due at the last step, the end makes one more.
    made = job.steps // every + (job.steps % every > 0) if every else 1
    return metrics + model_bytes(config, job) + _kept(config, job, made)


def bytes_while_running(config: Config, job: Job) -> float:
    """What it needs besides: the checkpoint that is being written before an older one goes, and
    what `keep: metrics` removes once the trial is scored.
    """
    every = config.training.checkpoint_every
    writing = checkpoint_bytes(config, job) if every else 0
    if config.keep != "metrics":
        return writing
    made = job.steps // every if every else 0
    return writing + model_bytes(config, job) + _kept(config, job, made)


def model_bytes(config: Config, job: Job) -> int:
    """`model/`: all weights, adapters merged, in the precision of training."""
    return count_parameters(job.shape, LoraSection()).total * _width(config)


def checkpoint_bytes(config: Config, job: Job) -> int:
    """A checkpoint: trained weights, two moments in fp32, and fp32 copies beside bf16 weights."""
    width = _width(config)
    copies = 4 if width < 4 else 0
    return count_parameters(job.shape, config.model.lora).trained * (width + copies + 8)


def _width(config: Config) -> int:
    return PRECISIONS[config.training.precision].itemsize


def _kept(config: Config, job: Job, made: int) -> int:
    """Bytes of those that are there at the end, of so many checkpoints made."""
    section, every = config.checkpoints, config.training.checkpoint_every
    kept = made
    if config.keep != "all":
        kept = section.last + (config.keep == "best")
        if section.milestone_every and every:
            kept += job.steps // lcm(section.milestone_every, every)
    return min(kept, made) * checkpoint_bytes(config, job)
