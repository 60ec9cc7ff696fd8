"""From what the units found to the figures, with their bootstrap intervals."""

from collections.abc import Mapping, Sequence

import numpy as np

from raymdm.config import Config
from raymdm.data.manifest import Manifest
from raymdm.diffusion.compose import make_estimator
from raymdm.diffusion.count_probe import CountMoments
from raymdm.diffusion.decomposition import (
    bootstrap_crossed,
    bootstrap_nested,
    crossed,
    nested,
)
from raymdm.diffusion.density import density_curve
from raymdm.diffusion.probe import Curve
from raymdm.diffusion.time import ImportanceTime
from raymdm.variances.contenders import STANDARD, same_objective
from raymdm.variances.curves import conditional_curves
from raymdm.variances.figures import (
    Figure,
    Figures,
    Fit,
    Gain,
    Measured,
    Parts,
    SketchFigures,
)
from raymdm.variances.gains import BatchVariances, figure, ratio, resampled_groups
from raymdm.variances.laboratory import Contender
from raymdm.variances.predict import Correlation, Prediction, limit
from raymdm.variances.units import Arrays

QUANTITIES = ("loss", "gradient")


def assemble(
    config: Config,
    manifest: Manifest,
    contenders: Sequence[Contender],
    probed: Mapping[str, Curve | None],
    left_out: Mapping[str, str],
    designs: Mapping[str, Sequence[Arrays]],
    moments: CountMoments,
    batches: Mapping[str, Arrays],
    *,
    parameters: int,
    coordinates: int,
    seconds: float,
) -> Figures:
    """All figures but the recommendation.

    Args:
        config: of the run.
        manifest: of the data.
        contenders: as they were measured, densities and all.
        probed: the curve that each one's density was fitted to, where it was fitted.
        left_out: estimators that could not be measured, and why.
        designs: of `crossed` and `nested`, what every row's unit found.
        moments: the count probe of the measured half.
        batches: of each contender, its batches.
        parameters: weights of the model.
        coordinates: of the subset whose gradient was measured.
        seconds: that the measuring took.
    """
    section = config.variance
    by_token = config.estimator.normalize == "token"
    values = {design: _values(units, by_token) for design, units in designs.items()}
    curves = {
        which: conditional_curves(
            designs["crossed"][0]["t"], values["crossed"][which], section.resamples, config.seed
        )
        for which in QUANTITIES
    }
    resamples = resampled_groups(config.seed, section.resamples, section.batches)
    spread = {
        contender.name: {
            which: _batch_variances(batches[contender.name], which, config) for which in QUANTITIES
        }
        for contender in contenders
    }
    standard = spread[STANDARD]
    correlations = {
        which: Correlation(
            np.array(curves[which].t), np.array([rho.value for rho in curves[which].rho])
        )
        for which in QUANTITIES
    }
    predictions = {which: Prediction(moments, which) for which in QUANTITIES}

    foreseen = {
        which: None
        if by_token
        else predictions[which].variance(
            contenders[0].estimator,
            config.training.batch_size,
            correlations[which],
        )
        for which in QUANTITIES
    }
    measured = []
    for contender in contenders:
        estimator = make_estimator(contender.section, contender.density)
        gains = {}
        for which in QUANTITIES:
            correlation = correlations[which]
            controlled = which == "loss" and contender.control is not None
            expected = optimum = None
            # Tokens normalised together make a ratio of two sums, for which there is no formula.
            if not controlled and not by_token:
                size = config.training.batch_size
                expected = predictions[which].variance(estimator, size, correlation)
                optimum = predictions[which].optimum(estimator, correlation)
            gains[which] = _gain(
                spread[contender.name][which],
                standard[which],
                estimator.law.views,
                expected,
                optimum,
                foreseen[which],
                resamples,
            )
        measured.append(
            Measured(
                name=contender.name,
                forwards=estimator.law.views,
                same_objective=same_objective(contender.section, contenders[0].section),
                limit=limit(estimator.stratify),
                loss=gains["loss"],
                gradient=gains["gradient"],
            )
        )
    budget = section.forwards or config.training.batch_size
    gradients = {name: both["gradient"] for name, both in spread.items()}
    measured = _over_best(measured, gradients, budget, resamples)
    parts = {
        which: _parts(values, which, standard[which], resamples, config) for which in QUANTITIES
    }
    return Figures(
        model=config.model.init_from or f"new, seed {config.seed}",
        model_parameters=parameters,
        data=config.data.folder,
        rows=manifest.splits["train"].rows,
        response_tokens=float(moments.lengths.mean()),
        seed=config.seed,
        batch_size=config.training.batch_size,
        epsilon=config.estimator.epsilon,
        normalize=config.estimator.normalize,
        settings=section.model_dump(),
        sketch=_sketch_figures(config, coordinates, designs["crossed"]),
        loss=parts["loss"],
        gradient=parts["gradient"],
        loss_curves=curves["loss"],
        gradient_curves=curves["gradient"],
        densities=_fits(contenders, probed),
        estimators=measured,
        left_out=dict(left_out),
        forwards=budget,
        seconds=seconds,
    )


def _values(units: Sequence[Arrays], by_token: bool) -> dict[str, np.ndarray]:
    """Of loss and gradient: float64[S, T, M, V, D], a row's share in a batch's value.

    Tokens normalised together make a batch's value the ratio of two sums. To first order a row
    then counts with n/mean(n) times what its loss per token exceeds the mean of all by.
    """
    loss = np.stack([unit["loss"] for unit in units])[..., None]
    gradient = np.stack([unit["sketch"] for unit in units])
    if not by_token:
        return {"loss": loss, "gradient": gradient}
    lengths = np.array([unit["length"] for unit in units], dtype=np.float64)
    share = lengths[:, None, None, None, None] / lengths.mean()
    return {
        name: values / lengths.mean() - share * (values.mean((0, 1, 2, 3)) / lengths.mean())
        for name, values in (("loss", loss), ("gradient", gradient))
    }


def _parts(
    values: Mapping[str, Mapping[str, np.ndarray]],
    which: str,
    standard: BatchVariances,
    resamples: np.ndarray,
    config: Config,
) -> Parts:
    # The first view of the crossed design is Standard's mask, the second MIRROR's reflection.
    own, shared = values["nested"][which][..., 0, :], values["crossed"][which][..., 0, :]
    options = {"seed": config.seed, "resamples": config.variance.resamples}
    nested_intervals = bootstrap_nested(own, **options)
    crossed_intervals = bootstrap_crossed(shared, **options)
    components, interaction = nested(own), crossed(shared)
    direct = figure(standard.redrawn(), standard.redrawn(resamples))
    return Parts(
        **{
            name: _figure(getattr(components, name), nested_intervals[name])
            for name in ("A", "B", "C", "total")
        },
        **{
            name: _figure(getattr(interaction, name), crossed_intervals[name])
            for name in ("B1", "B2")
        },
        direct=direct,
    )


def _figure(value: float, interval: tuple[float, float]) -> Figure:
    return Figure(value=value, low=interval[0], high=interval[1])


def _batch_variances(batches: Arrays, which: str, config: Config) -> BatchVariances:
    values = batches["loss"][..., None] if which == "loss" else batches["gradient"]
    return BatchVariances(values, config.training.batch_size)


def _gain(
    mine: BatchVariances,
    standard: BatchVariances,
    views: int,
    expected: float | None,
    optimum: float | None,
    foreseen: float | None,
    resamples: np.ndarray,
) -> Gain:
    """From an estimator's batches and Standard's, and what is expected of both."""
    step = ratio(mine.redrawn, standard.redrawn, resamples)
    here, drawn = mine.redrawn(), mine.redrawn(resamples)
    return Gain(
        variance=float(here[0]),
        fixed=ratio(mine.fixed, standard.fixed, resamples),
        step=step,
        forward=Figure(value=views * step.value, low=views * step.low, high=views * step.high),
        expected=expected,
        predicted=expected / foreseen if expected is not None and foreseen else None,
        optimum=optimum / foreseen if optimum is not None and foreseen else None,
        of_optimum=figure(here / optimum, drawn / optimum) if optimum else None,
    )


def _over_best(
    measured: Sequence[Measured],
    gradients: Mapping[str, BatchVariances],
    budget: int,
    resamples: np.ndarray,
) -> list[Measured]:
    """The estimators with the ratio of each to the best one that the budget can pay for."""
    able = [row for row in measured if row.same_objective and row.forwards <= budget]
    least = min(able, key=lambda row: row.gradient.forward.value)
    best = gradients[least.name]
    compared = []
    for row in measured:
        found = ratio(gradients[row.name].redrawn, best.redrawn, resamples)
        share = row.forwards / least.forwards
        over = Figure(value=share * found.value, low=share * found.low, high=share * found.high)
        compared.append(row.model_copy(update={"over_best": over}))
    return compared


def _fits(contenders: Sequence[Contender], probed: Mapping[str, Curve | None]) -> dict[str, Fit]:
    """Every density that is not uniform, beside what it was fitted to."""
    fits = {}
    grid = (np.arange(500) + 0.5) / 500
    for contender in contenders:
        section = contender.section
        time = make_estimator(section, contender.density).time
        if not isinstance(time, ImportanceTime):
            continue
        curve = probed[contender.name]
        root = np.empty(0)
        if curve is not None:
            root = density_curve(curve.second, curve.mean_square, section.density.target)
        origin = time.density.origin
        fits[contender.name] = Fit(
            kind=section.density.kind,
            coordinate="share" if section.masker.kind == "count" else "rate",
            pdf_t=grid.tolist(),
            pdf=time.density.pdf(grid).tolist(),
            probe_t=[] if curve is None else curve.t.tolist(),
            probe_root=root.tolist(),
            kl=origin.get("kl"),
        )
    return fits


def _sketch_figures(config: Config, coordinates: int, units: Sequence[Arrays]) -> SketchFigures:
    sketch = np.stack([unit["sketch"] for unit in units])
    exact = np.stack([unit["square"] for unit in units])
    dimension = sketch.shape[-1]
    error = (sketch**2).sum(-1)[exact > 0] / exact[exact > 0] - 1
    return SketchFigures(
        parameters=config.variance.parameters,
        coordinates=coordinates,
        dimension=dimension,
        stated_error=0.0 if dimension == coordinates else float(np.sqrt(2 / dimension)),
        measured_error=float(np.sqrt((error**2).mean())) if error.size else 0.0,
    )
