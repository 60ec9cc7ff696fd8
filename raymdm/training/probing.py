"""The density of the mask rate of a run: probed by all workers, fitted on rank 0, shared."""

from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed

from raymdm.diffusion import Rows, TimeDensity, make_estimator
from raymdm.diffusion.compose import unweighted
from raymdm.diffusion.count_probe import CountMoments, count_probe
from raymdm.diffusion.fit import density_from_counts, density_from_curve
from raymdm.diffusion.gradients import Sketch, gradient_parameters
from raymdm.diffusion.probe import Curve, grid_probe
from raymdm.errors import CheckpointError
from raymdm.models import Backbone
from raymdm.randomness import generator
from raymdm.training.job import Job, read_rows
from raymdm.training.seeds import seed_of
from raymdm.training.starting import trained_model

SKETCH = 512
"""Numbers that a probed gradient is reduced to; its norm is kept exactly beside them."""

Share = TypeVar("Share", Curve, CountMoments)


def shared_density(job: Job, model: Backbone | None, device: torch.device) -> TimeDensity:
    """The run's density, the same on every worker; every rank must call it.

    `density.json` of the run directory is read if it is there (a resumed run never refits), else it
    is written from the configured file or from a probe of the starting model.

    Args:
        job: the run.
        model: as it is trained, shared out among the workers for the probe; None (ZeRO 3) where
            they cannot all hold it: rank 0 then probes a whole one alone and drops it.
        device: of the worker.
    """
    first = torch.distributed.get_rank() == 0
    density = _shared(_stored(job) if first else None)
    if density is None and model is not None:
        part, parts = torch.distributed.get_rank(), torch.distributed.get_world_size()
        density = _shared(_probed(job, model, part, parts))
    elif density is None:
        alone = _probed(job, trained_model(job.config, job.shape, device), 0, 1) if first else None
        density = _shared(alone)
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
    return load_density(source)


def load_density(path: Path) -> TimeDensity:
    """The density of a `density.json`. Raises CheckpointError for a file that holds none."""
    try:
        return TimeDensity.load(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"density file {path}: {error}") from error


def _probed(job: Job, model: Backbone, part: int, parts: int) -> TimeDensity | None:
    """The density fitted to a probe of the starting model by so many workers, on the first; None
    elsewhere.
    """
    section, seed = job.config.estimator, seed_of(job.config, "probe")
    probe = section.density.probe
    rows = probe_rows(job, probe.rows).to(next(model.parameters()).device)
    gradient = None
    if section.density.moment == "gradient":
        parameters = gradient_parameters(model, probe.parameters)
        gradient = (parameters, Sketch(seed, SKETCH, parameters))
    estimator = make_estimator(unweighted(section))
    mask_token_id = job.shape.mask_token_id
    if probe.kind == "count":
        counts = _merged(
            count_probe(
                model,
                mask_token_id,
                rows,
                seed=seed,
                draws=probe.draws,
                batch_size=probe.batch_size,
                gradient=gradient,
                eligible=estimator.eligible(rows),
                part=part,
                parts=parts,
            ),
            parts,
        )
        return density_from_counts(counts, section, seed) if part == 0 else None
    curve = _merged(
        grid_probe(
            model,
            mask_token_id,
            rows,
            estimator,
            seed=seed,
            rates=probe.rates,
            masks=probe.masks,
            batch_size=probe.batch_size,
            gradient=gradient,
            part=part,
            parts=parts,
        ),
        parts,
    )
    return density_from_curve(curve, section, seed) if part == 0 else None


def probe_rows(job: Job, count: int) -> Rows:
    """Training rows that a probe looks at, a function of the stream's seed."""
    seed = seed_of(job.config, "probe")
    chosen = generator(seed, "probe", 0, 1).permutation(len(job.train))[:count]
    return read_rows(job, chosen, chosen)


def _merged(share: Share, parts: int) -> Share:
    """The whole measurement, from every worker's share of it."""
    if parts == 1:
        return share
    shares: list[Share] = [share] * parts
    torch.distributed.all_gather_object(shares, share)
    return type(share).merged(shares)
