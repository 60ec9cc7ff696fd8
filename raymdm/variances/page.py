"""`variance.html`: one page that holds its pictures and styles itself and needs no network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup

from raymdm.errors import DataError
from raymdm.variances import plots, tables
from raymdm.variances.figures import Figures, Gain, Measured
from raymdm.variances.wording import ratio, ratio_interval
from raymdm.verdict.pages import templates, write_whole

QUANTITIES = ("gradient", "loss")
"""In the order of the page: what the optimiser sees first."""


def render_page(figures: Figures) -> str:
    """The page as text. Everything that comes from the configuration or the data is escaped."""
    quantities = {name: getattr(figures, name) for name in QUANTITIES}
    page = templates("raymdm.variances").get_template("variance.html.j2")
    return page.render(
        figures=figures,
        decompositions=[
            {
                "quantity": quantity,
                "unit": tables.unit(parts),
                "rows": tables.decomposition(parts),
                "agreement": tables.agreement(quantity, parts),
            }
            for quantity, parts in quantities.items()
        ],
        estimators={
            quantity: [
                _estimator(one, getattr(one, quantity), figures.recommended)
                for one in figures.estimators
            ]
            for quantity in quantities
        },
        other_objective=tables.OTHER_OBJECTIVE
        if any(not one.same_objective for one in figures.estimators)
        else "",
        pictures=_pictures(figures),
        settings=list(_settings(figures)),
        sketch=figures.sketch,
    )


def write_figures(figures: Figures, folder: Path) -> None:
    """Write `variance.json` and `variance.html`, each all or nothing.

    Raises:
        DataError: the folder cannot be written to.
    """
    try:
        # A folder that cannot be is refused before the pictures are drawn.
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (
            ("variance.json", figures.model_dump_json(indent=1) + "\n"),
            ("variance.html", render_page(figures)),
        ):
            write_whole(folder / name, text)
    except OSError as error:
        raise DataError(
            f"cannot write the figures to {folder}: {error.strerror}; choose another folder"
        ) from error


def _estimator(measured: Measured, gain: Gain, recommended: str) -> dict[str, Any]:
    """One line of the table of all figures of one quantity."""
    return {
        "name": tables.starred(measured),
        "recommended": measured.name == recommended,
        "views": measured.forwards,
        "variance": f"{gain.variance:.3g}",
        "figures": [ratio_interval(figure) for figure in (gain.fixed, gain.step, gain.forward)],
        "predicted": ratio(gain.predicted),
        "optimum": ratio(gain.optimum),
        "limit": measured.limit if gain.optimum is not None else "",
        "of_optimum": ratio_interval(gain.of_optimum),
    }


def _pictures(figures: Figures) -> dict[str, list[Markup]]:
    drawn: dict[str, list[str | None]] = {
        "parts": [plots.parts_plot(figures)],
        "estimators": [plots.estimators_plot(figures, quantity) for quantity in QUANTITIES],
        "moments": [plots.moments_plot(figures, quantity) for quantity in QUANTITIES],
        "views": [plots.correlation_plot(figures, quantity) for quantity in QUANTITIES],
        "densities": [
            plots.densities_plot(figures.densities, coordinate) for coordinate in ("rate", "share")
        ],
    }
    return {
        name: [Markup(picture) for picture in several if picture] for name, several in drawn.items()
    }


def _settings(figures: Figures) -> Iterator[tuple[str, str]]:
    """What was measured, and with what."""
    sketch = figures.sketch
    yield "model", f"{figures.model} ({figures.model_parameters:,} parameters)"
    yield "data", f"{figures.data} ({figures.response_tokens:.1f} response tokens a row)"
    yield "training rows", f"{figures.rows:,}"
    yield "rows of a batch", str(figures.batch_size)
    yield "forwards a step (budget)", str(figures.forwards)
    yield "epsilon", f"{figures.epsilon:g}"
    yield "normalize", figures.normalize
    yield "seed", str(figures.seed)
    yield "gradient of", f"{sketch.parameters} ({sketch.coordinates:,} coordinates)"
    yield (
        "sketch",
        f"{sketch.dimension} numbers; relative error of a squared norm {sketch.measured_error:.2g} "
        f"measured, {sketch.stated_error:.2g} by theory",
    )
    for name, value in figures.settings.items():
        yield f"variance.{name}", ", ".join(value) if isinstance(value, list) else str(value)
    yield "seconds", f"{figures.seconds:.0f}"
