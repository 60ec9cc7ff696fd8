"""The density of the mask rate of a run: probed once on rank 0, shared with every worker."""

from pathlib import Path

import torch.distributed

from raymdm.data.collate import collate
from raymdm.diffusion import TimeDensity, fit_density
from raymdm.diffusion.estimator import Estimator, make_estimator
from raymdm.diffusion.noise import generator
from raymdm.diffusion.probe import probe_loss
from raymdm.errors import CheckpointError
from raymdm.models import Backbone
from raymdm.training.job import Job


def shared_density(job: Job, model: Backbone) -> TimeDensity:
    """The run's density, the same on every worker; every rank must call it.

    `density.json` of the run directory is read if it is there (a resumed run never refits), else it
    is written from the configured file or from a probe of the starting model.
    """
    box: list[TimeDensity | None] = [None]
    if torch.distributed.get_rank() == 0:
        box[0] = _density(job, model)
    if torch.distributed.get_world_size() > 1:
        torch.distributed.broadcast_object_list(box, src=0)
    assert box[0] is not None
    return box[0]


def _density(job: Job, model: Backbone) -> TimeDensity:
    given = job.config.estimator.density.file
    source = job.run.density if job.run.density.exists() else given and Path(given)
    if source:
        try:
            density = TimeDensity.load(source)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"density file {source}: {error}") from error
    else:
        density = fit_run_density(job, model)
    if not job.run.density.exists():
        density.save(job.run.density)
    return density


def fit_run_density(job: Job, model: Backbone) -> TimeDensity:
    """Probe the model with the run's own masker on training rows, and fit."""
    section = job.config.estimator.density
    probe = section.probe
    uniform = job.config.estimator.model_copy(
        update={"time": job.config.estimator.time.model_copy(update={"sampler": "uniform"})}
    )
    estimator: Estimator = make_estimator(uniform)
    chosen = generator(job.config.seed, "probe", 0, 1).permutation(len(job.train))[: probe.rows]
    rows = job.train.read(chosen.tolist())
    batch = collate(
        [row["input_ids"] for row in rows],
        [row["prompt_length"] for row in rows],
        chosen,
        pad_token_id=job.shape.pad_token_id,
        eos_token_id=job.shape.eos_token_id,
        pad_supervision=job.config.data.pad_supervision,
        max_length=job.manifest.max_length,
    )
    t, moments = probe_loss(
        model,
        job.shape.mask_token_id,
        batch.to(next(model.parameters()).device),
        estimator,
        seed=job.config.seed,
        rates=probe.rates,
        masks=probe.masks,
        batch_size=probe.batch_size,
    )
    assert section.kind == "epr"
    return fit_density(
        t, moments, starts=section.fit_starts, mixing=section.mixing, seed=job.config.seed
    )
