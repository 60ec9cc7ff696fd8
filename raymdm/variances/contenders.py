"""The estimators to be measured: from names to compositions, and those that cannot be measured."""

from collections.abc import Sequence
from pathlib import Path

from raymdm.config import Config, merge_overlay
from raymdm.config.estimator import EstimatorSection
from raymdm.config.loading import read_file, validate
from raymdm.data.manifest import Manifest, check_marks
from raymdm.diffusion import TimeDensity
from raymdm.diffusion.compose import needs_probe
from raymdm.diffusion.control import MovingAverage
from raymdm.diffusion.count_probe import CountMoments
from raymdm.diffusion.fit import density_from_counts, density_from_curve
from raymdm.diffusion.probe import Curve
from raymdm.diffusion.stream import StreamMoments
from raymdm.errors import ConfigurationError, DataError
from raymdm.variances.laboratory import Contender, plain
from raymdm.variances.units import Arrays

STANDARD = "standard"


def choose(config: Config, manifest: Manifest) -> tuple[list[Contender], dict[str, str]]:
    """The contenders, Standard first and densities still missing; and who is left out, and why.

    A preset's own keys are laid over the run's estimator, so that epsilon, normalisation and the
    sizes of probes are the run's.

    Raises:
        ConfigurationError: an unknown estimator, or a configuration that is autoregressive.
    """
    if config.estimator.objective == "autoregressive":
        raise ConfigurationError(
            "raymdm variance measures masked diffusion losses, and estimator.objective is "
            "autoregressive; leave estimators/arm away"
        )
    chosen = [Contender(STANDARD, plain(config.estimator))]
    left_out: dict[str, str] = {}
    for name in dict.fromkeys(config.variance.estimators):
        section = _section(config, name)
        if section.objective == "autoregressive":
            left_out[name] = "next-token prediction has no mask rate; train it and compare scores"
            continue
        try:
            check_marks(
                config.data.folder,
                manifest,
                delimiters=section.delimiters.rates != "same",
                syntax=section.eligible == "response_and_syntax",
            )
        except DataError:
            marks = "syntax" if section.eligible == "response_and_syntax" else "delimiters"
            left_out[name] = f"no row of the data has marked {marks}: set task.{marks} and prepare"
            continue
        if name != STANDARD:
            chosen.append(Contender(name, section))
    return chosen, left_out


def _section(config: Config, name: str) -> EstimatorSection:
    if name == "configured":
        return config.estimator
    shipped = "/" not in name and not name.endswith(".yaml")
    overlay = read_file(f"estimators/{name}" if shipped else name)
    merged = merge_overlay({"estimator": config.estimator.model_dump()}, overlay)
    return validate({"estimator": merged["estimator"]}, f"variance.estimators: {name}").estimator


def same_objective(section: EstimatorSection) -> bool:
    """Whether the expectation is Standard's, up to epsilon."""
    return (
        section.time.sampler != "clipped"
        and section.delimiters.rates != "raised"
        and section.eligible == "response"
    )


def is_adaptive(section: EstimatorSection) -> bool:
    """Whether the density comes from the training stream."""
    return section.time.sampler == "importance" and section.density.kind == "ap"


def needs_stream(section: EstimatorSection) -> bool:
    """Whether it learns from the losses of a training stream."""
    return is_adaptive(section) or section.control.kind == "ema"


def needs_grid(section: EstimatorSection) -> bool:
    """Whether its density is fitted to a grid probe of its own."""
    return needs_probe(section) and section.density.probe.kind == "grid"


def fitted(
    contender: Contender, counts: CountMoments, grid: Curve | None, seed: int
) -> TimeDensity | None:
    """The density of a contender from the fitting half's probes; None where it needs none."""
    section = contender.section
    if not needs_probe(section):
        return contender.density
    if section.density.file is not None:
        return TimeDensity.load(Path(section.density.file))
    if grid is not None:
        return density_from_curve(grid, section, seed)
    return density_from_counts(counts, section, seed)


def warmed(contender: Contender, stream: Sequence[Arrays]) -> Contender:
    """The contender after a stream of batches: adaptive density refitted, control variate filled.

    Raises:
        ConfigurationError: too few batches to have seen every bin of an adaptive density.
    """
    section, density, control = contender.section, contender.density, contender.control
    if section.control.kind == "ema":
        control = MovingAverage(
            section.control.bins, section.control.decay, section.control.coefficient
        )
    # All batches count alike: a run of any length would have forgotten none of the last hundred.
    moments = StreamMoments(section.density.adaptive.bins, forgetting=1.0)
    for part in stream:
        for t, weight, losses, denominators in zip(
            part["t"], part["weight"], part["view_losses"], part["denominators"], strict=True
        ):
            moments.update(t, weight, losses * (len(t) / denominators.sum()))
            if control is not None:
                control.update(t, losses.mean(0), denominators)
    if is_adaptive(section):
        density = moments.density(section.density.target, section.density.mixing)
        if density is None:
            raise ConfigurationError(
                f"variance.estimators: {contender.name} has not seen every bin of its density; "
                "raise variance.batches or training.batch_size, or leave it out"
            )
    return Contender(contender.name, section, density, control)
