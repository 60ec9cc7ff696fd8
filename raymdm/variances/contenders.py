"""The estimators to be measured: from names to compositions, and those that cannot be measured."""

from collections.abc import Sequence
from pathlib import Path

from raymdm.config import Config, merge_overlay
from raymdm.config.estimator import EstimatorSection
from raymdm.config.loading import read_file, validate
from raymdm.data.manifest import Manifest, check_marks
from raymdm.diffusion.compose import needs_probe
from raymdm.diffusion.control import MovingAverage
from raymdm.diffusion.stream import StreamMoments
from raymdm.errors import ConfigurationError, DataError
from raymdm.training.probing import load_density
from raymdm.variances.laboratory import Contender, plain
from raymdm.variances.units import Arrays

STANDARD = "standard"


def choose(config: Config, manifest: Manifest) -> tuple[list[Contender], dict[str, str]]:
    """The contenders, Standard first and fitted densities still missing; who is left out, and why.

    A preset's own keys are laid over the run's estimator, so that epsilon, normalisation and the
    sizes of probes are the run's.

    Raises:
        ConfigurationError: an unknown estimator, or a configuration that is autoregressive.
        CheckpointError: a density file that holds none.
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
            left_out[name] = (
                "no row of the data has the marks it needs: set task.delimiters or task.syntax "
                "and prepare"
            )
            continue
        if name != STANDARD:
            file = section.density.file if needs_probe(section) else None
            chosen.append(Contender(name, section, load_density(Path(file)) if file else None))
    return chosen, left_out


def _section(config: Config, name: str) -> EstimatorSection:
    if name == "configured":
        return config.estimator
    shipped = "/" not in name and not name.endswith(".yaml")
    overlay = read_file(f"estimators/{name}" if shipped else name)
    if "estimator" not in overlay:
        raise ConfigurationError(
            f"variance.estimators: {name} has no section estimator; name an estimator's file"
        )
    base = config.estimator.model_dump()
    # A file of the run's own density says nothing of another composition.
    base["density"]["file"] = None
    merged = merge_overlay({"estimator": base}, overlay)
    return validate({"estimator": merged["estimator"]}, f"variance.estimators: {name}").estimator


def same_objective(section: EstimatorSection, standard: EstimatorSection) -> bool:
    """Whether the expectation is Standard's, up to epsilon."""
    return (
        section.time.sampler != "clipped"
        and section.delimiters.rates != "raised"
        and section.eligible == "response"
        and (section.normalize, section.epsilon) == (standard.normalize, standard.epsilon)
    )


def is_adaptive(section: EstimatorSection) -> bool:
    """Whether the density comes from the training stream."""
    return section.time.sampler == "importance" and section.density.kind == "ap"


def needs_stream(section: EstimatorSection) -> bool:
    """Whether it learns from the losses of a training stream."""
    return is_adaptive(section) or section.control.kind == "ema"


def probe_kind(contender: Contender) -> str | None:
    """`grid` or `count`, which probe its density is fitted to; None where it needs none."""
    if contender.density is not None or not needs_probe(contender.section):
        return None
    return contender.section.density.probe.kind


def warmed(contender: Contender, stream: Sequence[Arrays]) -> Contender:
    """The contender after a stream of batches: adaptive density refitted, control variate filled.

    Raises:
        ConfigurationError: too few batches for an adaptive density.
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
                f"variance.estimators: {contender.name} has seen less than half of its bins; "
                "raise variance.batches or training.batch_size, or leave it out"
            )
    return Contender(contender.name, section, density, control)
