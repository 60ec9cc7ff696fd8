"""From a configuration to the composition that it describes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from raymdm.config.estimator import EstimatorSection, MaskerSection, TimeSection
from raymdm.config.loading import read_file, validate
from raymdm.diffusion.density import CELLS, TimeDensity, power_density
from raymdm.diffusion.estimator import Estimator
from raymdm.diffusion.law import AutoregressiveLaw, CountLaw, Law, RateLaw
from raymdm.diffusion.masking import (
    ComplementMasker,
    IndependentMasker,
    Masker,
    MirrorMasker,
    RotationMasker,
)
from raymdm.diffusion.stratify import (
    AntitheticUniforms,
    IndependentUniforms,
    LatticeUniforms,
    StratifiedUniforms,
    Stratify,
)
from raymdm.diffusion.time import ClippedTime, ImportanceTime, TimeSampler, UniformTime
from raymdm.errors import ConfigurationError


def make_estimator(
    config: EstimatorSection | Mapping[str, Any] | str, density: TimeDensity | None = None
) -> Estimator:
    """The composition that a configuration (or the name of a shipped preset) describes.

    Args:
        config: an `EstimatorSection`, the same as a mapping, or a preset's name such as `mirror`.
        density: the fitted density, needed by importance sampling from a probed kind.

    Raises:
        ConfigurationError: unknown preset or keys, or importance sampling without a density.
    """
    section = estimator_section(config)
    return Estimator(
        time=_time(section, density),
        law=_law(section),
        stratify=_stratify(section.time),
        normalize=section.normalize,
        with_syntax=section.eligible == "response_and_syntax",
    )


def estimator_section(config: EstimatorSection | Mapping[str, Any] | str) -> EstimatorSection:
    """The validated section. Raises ConfigurationError for an unknown preset or key."""
    if isinstance(config, EstimatorSection):
        return config
    content = read_file(f"estimators/{config}") if isinstance(config, str) else None
    return validate(content or {"estimator": config}).estimator


def needs_probe(section: EstimatorSection) -> bool:
    """Whether t comes from a density that has to be measured first."""
    return section.time.sampler == "importance" and section.density.kind not in ("power", "ap")


def unweighted(section: EstimatorSection) -> EstimatorSection:
    """The same composition with independent uniform rates: what a probe runs."""
    return section.model_copy(update={"time": TimeSection()})


def _time(section: EstimatorSection, density: TimeDensity | None) -> TimeSampler:
    if section.time.sampler == "clipped":
        return ClippedTime(section.time.bounds[0], section.time.bounds[1])
    if section.time.sampler == "uniform":
        return UniformTime()
    if density is None and not needs_probe(section):
        # Also where `ap` starts, before the stream has told it anything. Exact counts have no pole
        # at 0 that would ask for more rows there.
        flat = section.density.kind == "ap" and section.masker.kind == "count"
        start = TimeDensity(np.ones(CELLS)) if flat else power_density(section.epsilon)
        density = start.mixed(section.density.mixing)
    if density is None:
        raise ConfigurationError(
            "estimator.time.sampler importance needs a density: fit one with fit_density, "
            "or train, which probes the model for it"
        )
    return ImportanceTime(density)


def _law(section: EstimatorSection) -> Law:
    if section.objective == "autoregressive":
        return AutoregressiveLaw()
    if section.masker.kind == "count":
        return CountLaw(section.masker.views)
    return RateLaw(
        _masker(section.masker),
        section.epsilon,
        section.delimiters.rates,
        section.delimiters.delta,
    )


def _masker(section: MaskerSection) -> Masker:
    if section.kind == "mirror":
        return MirrorMasker()
    if section.kind == "complement":
        return ComplementMasker()
    if section.kind == "rotation":
        return RotationMasker(section.views)
    return IndependentMasker(section.views)


def _stratify(section: TimeSection) -> Stratify:
    if section.stratify == "antithetic":
        return AntitheticUniforms()
    if section.stratify == "lattice":
        return LatticeUniforms()
    if section.stratify == "strata":
        return StratifiedUniforms(section.strata)
    return IndependentUniforms()
