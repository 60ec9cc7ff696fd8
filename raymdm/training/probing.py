"""The density of the mask rate of a run: probed once on rank 0, shared with every worker."""

from pathlib import Path

import numpy as np
import torch.distributed

from raymdm.data.collate import collate
from raymdm.diffusion import TimeDensity, fit_density
from raymdm.diffusion.estimator import Estimator, make_estimator
from raymdm.diffusion.noise import generator
from raymdm.diffusion.probe import positive, probe_loss
from raymdm.errors import CheckpointError
from raymdm.models import Backbone
from raymdm.training.job import Job


def shared_density(job: Job, model: Backbone) -> TimeDensity:
    """The run's density, the same on every worker; every rank must call it.

    `density.json` of the run directory is read if it is there (a resumed run never refits), else it
    is written from the configured file or from a probe of the starting model.
    """
    first = torch.distributed.get_rank() == 0
    density = _shared(_stored(job) if first else None)
    if density is None:
        t, moments = _probe(job, model)
        section = job.config.estimator.density
        assert section.kind == "epr"
        if first:
            density = fit_density(
                t, moments, starts=section.fit_starts, mixing=section.mixing, seed=job.config.seed
            )
        density = _shared(density)
    assert density is not None
    if first and not job.run.density.exists():
        density.save(job.run.density)
    return density


def _shared(density: TimeDensity | None) -> TimeDensity | None:
    """Rank 0's value on every rank."""
    box = [density]
    if torch.distributed.get_world_size() > 1:
        torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def _stored(job: Job) -> TimeDensity | None:
    given = job.config.estimator.density.file
    source = job.run.density if job.run.density.exists() else given and Path(given)
    if not source:
        return None
    try:
        return TimeDensity.load(source)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"density file {source}: {error}") from error


def _probe(job: Job, model: Backbone) -> tuple[np.ndarray, np.ndarray]:
    """The probe curve, measured with the run's own masker on training rows by all workers."""
    workers = torch.distributed.get_world_size()
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
        part=torch.distributed.get_rank(),
        parts=workers,
    )
    if workers > 1:
        measured: list[np.ndarray] = [moments] * workers
        torch.distributed.all_gather_object(measured, moments)
        for part, share in enumerate(measured):
            moments[part::workers] = share[part::workers]
    return t, positive(moments)
