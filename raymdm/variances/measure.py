"""The measurement as a whole: units of work over the cluster, then the figures.

First the decomposition and the probes, then the densities, then whole batches of every estimator.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from raymdm.config import Config
from raymdm.data.manifest import read_manifest
from raymdm.diffusion.count_probe import CountMoments
from raymdm.diffusion.fit import counted_curve, density_from_curve
from raymdm.diffusion.gradients import gradient_parameters
from raymdm.diffusion.probe import Curve
from raymdm.errors import DataError
from raymdm.models.weights import empty_model
from raymdm.training import RunDirectory
from raymdm.training.job import make_job
from raymdm.training.starting import ready_to_train
from raymdm.variances.assemble import assemble
from raymdm.variances.contenders import choose, needs_stream, probe_kind, warmed
from raymdm.variances.figures import Figures
from raymdm.variances.laboratory import Contender
from raymdm.variances.units import (
    Arrays,
    Batches,
    CountShare,
    Decompose,
    GridShare,
    Unit,
    WarmUp,
)
from raymdm.variances.work import Advance, Work

COUNT_PARTS, GRID_PARTS, BATCHES_PER_UNIT = 16, 8, 8
"""How work is cut up; fixed, so that progress is smooth on any cluster."""


def measure(config: Config, folder: Path, advance: Advance) -> Figures:
    """Measure everything that `config.variance` asks for.

    Args:
        config: model, data, estimator and batch as for training.
        folder: where finished units are kept meanwhile.
        advance: told of progress.

    Finished units stay in `folder` until `forget_units`: the figures have to be written first.

    Raises:
        UserError: data, model, estimators or cluster that do not fit.
        RunError: a loss or gradient that is not finite.
    """
    started = time.monotonic()
    manifest = read_manifest(Path(config.data.folder))
    _check(config)
    contenders, left_out = choose(config, manifest)
    work = Work(config, manifest, folder, advance)

    section = config.variance
    decompositions = [Decompose(s, d) for d in ("crossed", "nested") for s in range(section.rows)]
    counts = [CountShare(part, COUNT_PARTS) for part in range(COUNT_PARTS)]
    probes = {c.name: _probe_units(c) for c in contenders}
    streams = [
        WarmUp(c, first, BATCHES_PER_UNIT)
        for c in contenders
        if needs_stream(c.section)
        for first in range(0, section.batches, BATCHES_PER_UNIT)
    ]
    batches_each = len(range(0, section.batches, BATCHES_PER_UNIT))
    # Compositions whose densities are fitted to the same share a probe.
    shared = {unit.name: unit for units in probes.values() for unit in units}
    first_part: list[Unit] = [*decompositions, *counts, *shared.values(), *streams]
    work.total = len(first_part) + batches_each * len(contenders)
    found = work.run(first_part)

    probed = {c.name: _curve(c, [found[u.name] for u in probes[c.name]]) for c in contenders}
    ready = []
    for contender in contenders:
        shown = [found[u.name] for u in streams if u.contender.name == contender.name]
        curve = probed[contender.name]
        if curve is not None:
            density = density_from_curve(curve, contender.section, config.seed)
            contender = replace(contender, density=density)
        ready.append(warmed(contender, shown) if shown else contender)
    batches = [
        Batches(c, first, min(BATCHES_PER_UNIT, section.batches - first))
        for c in ready
        for first in range(0, section.batches, BATCHES_PER_UNIT)
    ]
    measured = work.run(batches)
    per_contender = {
        c.name: _joined([measured[u.name] for u in batches if u.contender.name == c.name])
        for c in ready
    }
    designs = {
        design: [found[u.name] for u in decompositions if u.design == design]
        for design in ("crossed", "nested")
    }
    return assemble(
        config,
        manifest,
        ready,
        probed,
        left_out,
        designs,
        merged_counts([found[u.name] for u in counts]),
        per_contender,
        parameters=work.parameters,
        coordinates=work.coordinates,
        seconds=time.monotonic() - started,
    )


def merged_counts(shares: Sequence[Arrays]) -> CountMoments:
    """All draws of a count probe from its shares, in order."""
    first = shares[0]
    parts = len(shares)
    whole = {name: first[name] for name in ("lengths", "counts", "proposals", "rows", "lattices")}
    for name in ("losses", "sketches", "squared_norms"):
        values = np.empty((len(first["counts"]), *first[name].shape[1:]))
        for part, share in enumerate(shares):
            values[part::parts] = share[name]
        whole[name] = values
    return CountMoments(**whole)


def _probe_units(contender: Contender) -> list[CountShare] | list[GridShare]:
    """What the contender's density is fitted to; nothing where it needs no probe."""
    kind = probe_kind(contender)
    if kind == "count":
        return [CountShare(part, COUNT_PARTS, contender) for part in range(COUNT_PARTS)]
    if kind == "grid":
        return [GridShare(contender, part, GRID_PARTS) for part in range(GRID_PARTS)]
    return []


def _curve(contender: Contender, shares: Sequence[Arrays]) -> Curve | None:
    """The curve that the density is fitted to, from the shares of its probe."""
    kind = probe_kind(contender)
    if kind == "count":
        return counted_curve(merged_counts(shares), contender.section)
    return Curve.merged([Curve(**arrays) for arrays in shares]) if kind == "grid" else None


def _joined(parts: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _check(config: Config) -> None:
    """What would otherwise fail inside an actor, after minutes."""
    job = make_job(config, RunDirectory(config.run_dir))
    needed = 2 * config.variance.rows
    if len(job.train) < needed:
        raise DataError(
            f"data.folder {config.data.folder} has {len(job.train)} training rows and raymdm "
            f"variance needs {needed}: half to fit densities, half to measure; lower variance.rows"
        )
    model = ready_to_train(empty_model(job.shape), config)
    gradient_parameters(model, config.variance.parameters)
