"""The measurement as a whole: units of work over the cluster, then the figures.

First the decomposition and the probes, then the densities, then whole batches of every estimator.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from raymdm.config import Config
from raymdm.data.manifest import Manifest, read_manifest
from raymdm.diffusion.count_probe import CountMoments
from raymdm.diffusion.gradients import gradient_parameters
from raymdm.diffusion.probe import Curve
from raymdm.errors import DataError
from raymdm.models import Backbone
from raymdm.training.job import model_shape
from raymdm.variances.assemble import assemble
from raymdm.variances.contenders import choose, fitted, needs_grid, needs_stream, warmed
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

    Raises:
        UserError: data, model, estimators or cluster that do not fit.
        RunError: a loss or gradient that is not finite.
    """
    started = time.monotonic()
    manifest = read_manifest(Path(config.data.folder))
    _check(config, manifest)
    contenders, left_out = choose(config, manifest)
    work = Work(config, manifest, folder, advance)

    section = config.variance
    decompositions = [Decompose(s, d) for d in ("crossed", "nested") for s in range(section.rows)]
    counts = [
        CountShare(h, p, COUNT_PARTS) for h in ("fit", "measured") for p in range(COUNT_PARTS)
    ]
    grids = [
        GridShare(c, part, GRID_PARTS)
        for c in contenders
        if needs_grid(c.section) and c.section.density.file is None
        for part in range(GRID_PARTS)
    ]
    streams = [
        WarmUp(c, first, BATCHES_PER_UNIT)
        for c in contenders
        if needs_stream(c.section)
        for first in range(0, section.batches, BATCHES_PER_UNIT)
    ]
    batches_each = len(range(0, section.batches, BATCHES_PER_UNIT))
    # Compositions that differ in their rates only share a probe.
    own_grids = {unit.name: unit for unit in grids}
    first_part: list[Unit] = [*decompositions, *counts, *own_grids.values(), *streams]
    work.total = len(first_part) + batches_each * len(contenders)
    found = work.run(first_part)

    moments = {
        half: merged_counts([found[u.name] for u in counts if u.half == half])
        for half in ("fit", "measured")
    }
    probed = {c.name: _grid(c, grids, found) for c in contenders}
    ready = []
    for contender in contenders:
        density = fitted(contender, moments["fit"], probed[contender.name], config.seed)
        shown = [found[u.name] for u in streams if u.contender.name == contender.name]
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
    figures = assemble(
        config,
        manifest,
        ready,
        probed,
        left_out,
        designs,
        moments,
        per_contender,
        parameters=work.parameters,
        coordinates=work.coordinates,
        seconds=time.monotonic() - started,
    )
    work.forget()
    return figures


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


def _grid(
    contender: Contender, grids: Sequence[GridShare], found: dict[str, Arrays]
) -> Curve | None:
    mine = [found[unit.name] for unit in grids if unit.contender.name == contender.name]
    return Curve.merged([Curve(**arrays) for arrays in mine]) if mine else None


def _joined(parts: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _check(config: Config, manifest: Manifest) -> None:
    """What would otherwise fail inside an actor, after minutes."""
    rows = manifest.splits["train"].rows
    needed = 2 * config.variance.rows
    if rows < needed:
        raise DataError(
            f"data.folder {config.data.folder} has {rows} training rows and raymdm variance needs "
            f"{needed}: half to fit densities, half to measure; lower variance.rows"
        )
    with torch.device("meta"):
        gradient_parameters(Backbone(model_shape(config, manifest)), config.variance.parameters)
