"""Pictures of the figures as inline SVG, in the style of the reports of runs."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from raymdm.variances.figures import Curves, Figure, Figures, Fit, Parts
from raymdm.variances.tables import starred
from raymdm.variances.wording import figure_text, percent
from raymdm.verdict.plots import as_svg, new_figure, new_panels, short

QUANTITY_COLOURS = {"loss": "#0072B2", "gradient": "#D55E00"}
PART_COLOURS = {"A": "#0072B2", "B1": "#E69F00", "B2": "#CC79A7", "C": "#777777"}
_GRID = "#e6e6e6"
_REFERENCE = "#777777"
_LOG_FROM = 8.0
"""Curves that span more than this ratio are drawn on a logarithmic scale."""


def parts_plot(figures: Figures) -> str:
    """Stacked shares A, B1, B2, C of the loss and of the gradient.

    A component that was estimated below zero has no bar.
    """
    figure, axes = new_figure(2.0)
    quantities = {"gradient": figures.gradient, "loss": figures.loss}
    for place, parts in enumerate(quantities.values()):
        start = 0.0
        for name, width in _shares(parts).items():
            axes.barh(
                place,
                width,
                left=start,
                height=0.62,
                color=PART_COLOURS[name],
                label=name if place == 0 else None,
            )
            if width >= 0.08:
                axes.text(
                    start + width / 2,
                    place,
                    percent(width),
                    ha="center",
                    va="center",
                    color="black" if name in ("B1", "B2") else "white",
                )
            start += width
    axes.set_yticks(range(len(quantities)), list(quantities))
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f}%"))
    axes.set_xlabel("share of the variance")
    axes.legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)
    return as_svg(figure, "Shares of the variance of loss and gradient")


def estimators_plot(figures: Figures, quantity: str) -> str:
    """Variance of every estimator with intervals, per forward and, of several views, per step."""
    estimators = figures.estimators
    figure, axes = new_figure(1.0 + 0.28 * len(estimators))
    axes.axvline(1, color=_REFERENCE, lw=1)
    for place, measured in enumerate(estimators):
        gain = getattr(measured, quantity)
        tint = QUANTITY_COLOURS[quantity] if measured.same_objective else _REFERENCE
        _dot(axes, gain.forward, place, tint, filled=True)
        if measured.forwards > 1:
            _dot(axes, gain.step, place, tint, filled=False)
    axes.set_yticks(range(len(estimators)), [short(starred(one)) for one in estimators])
    for tick, measured in zip(axes.get_yticklabels(), estimators, strict=True):
        tick.set_fontweight("bold" if measured.name == figures.recommended else "normal")
    axes.set_ylim(len(estimators) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xscale("log")
    _plain_ticks(axes.xaxis)
    axes.grid(color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"{quantity} variance, Standard = 1")
    return as_svg(figure, f"Variance of the {quantity} under the estimators")


def moments_plot(figures: Figures, quantity: str) -> str:
    """g(t), the mean given the rate, above v(t), the variance given the rate."""
    curves: Curves = getattr(figures, f"{quantity}_curves")
    figure, (upper, lower) = new_panels(4.6, 2)
    tint = QUANTITY_COLOURS[quantity]
    mean = "norm of the mean gradient, g" if quantity == "gradient" else "mean loss, g"
    for axes, values, label in (
        (upper, curves.g, mean),
        (lower, curves.v, f"variance of the {quantity}, v"),
    ):
        _band(axes, curves.t, values, tint)
        _logarithmic_if_wide(axes, values)
        axes.set_title(label, loc="left", fontsize=10, color="#444444")
        axes.set_xlim(0, 1)
        axes.grid(color=_GRID, lw=0.8)
        axes.set_axisbelow(True)
    upper.tick_params(labelbottom=False)
    lower.set_xlabel("mask rate t")
    return as_svg(figure, f"Mean and variance of the {quantity} given the mask rate")


def correlation_plot(figures: Figures, quantity: str) -> str:
    """rho(t) of two mirrored views, with what the pooled one would have to reach to pay."""
    parts: Parts = getattr(figures, quantity)
    curves: Curves = getattr(figures, f"{quantity}_curves")
    figure, axes = new_figure(3.0)
    t = np.linspace(0, 1, 201)
    axes.axhline(0, color=_REFERENCE, lw=1)
    axes.plot(t, additive_correlation(t, figures.epsilon), ":", color=_REFERENCE, lw=1.4)
    _band(axes, curves.t, curves.rho, QUANTITY_COLOURS[quantity])
    others = parts.B.value + parts.C.value
    needed = -others / parts.A.value if parts.A.value > 0 else -np.inf
    if needed > -1:
        axes.axhline(needed, color="black", lw=1, ls="--")
    axes.set_title(
        f"{quantity}: pooled {figure_text(curves.pooled_rho, 2)}, "
        + (f"pays below {needed:.2f}" if needed > -1 else "cannot pay"),
        loc="left",
        fontsize=10,
        color="#444444",
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(-1.08, max(0.4, *(point.value + 0.1 for point in curves.rho)))
    axes.grid(color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("mask rate t")
    return as_svg(figure, f"Correlation of the {quantity} of two mirrored views")


def additive_correlation(t: np.ndarray, epsilon: float) -> np.ndarray:
    """Correlation of two mirrored mask indicators: rho(t) of a loss that is additive in them.

    -alpha/(1 - alpha) up to alpha = 1/2, then its inverse (design note "estimators", section 4).
    """
    alpha = (1 - epsilon) * t + epsilon
    odds = np.minimum(alpha, 1 - alpha) / np.maximum(alpha, 1 - alpha)
    return -odds


def densities_plot(densities: dict[str, Fit], coordinate: str) -> str | None:
    """Small multiples: each density as a line, its normalised probe as dots.

    None where no density is over that coordinate.
    """
    fits = {name: fit for name, fit in densities.items() if fit.coordinate == coordinate}
    if not fits:
        return None
    columns = 2
    rows = -(-len(fits) // columns)
    figure, panels = new_panels(0.5 + 1.75 * rows, rows, columns)
    shown = [np.concatenate([fit.pdf, normalised_probe(fit)]) for fit in fits.values()]
    values = np.concatenate(shown)
    low, high = values[values > 0].min() / 1.25, values.max() * 1.25
    for axes, (name, fit) in zip(panels, fits.items(), strict=False):
        axes.axhline(1, color=_REFERENCE, lw=0.8)
        if fit.probe_t:
            axes.plot(fit.probe_t, normalised_probe(fit), "o", ms=3, color="#E69F00")
        axes.plot(fit.pdf_t, fit.pdf, color="#0072B2", lw=1.5)
        axes.set_title(short(name), loc="left", fontsize=10)
        detail = fit.kind if fit.kl is None else f"{fit.kind}, KL {fit.kl:.2g}"
        axes.text(0.97, 0.93, detail, transform=axes.transAxes, ha="right", va="top", fontsize=9)
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.5, 1], ["0", "½", "1"])
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        _plain_ticks(axes.yaxis, most=6)
        axes.grid(color=_GRID, lw=0.8)
        axes.set_axisbelow(True)
    for axes in panels[len(fits) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(fits) - columns) : len(fits)]:
        axes.set_xlabel("mask rate t" if coordinate == "rate" else "share k/n")
    return as_svg(figure, f"Densities over the {coordinate}")


def normalised_probe(fit: Fit) -> np.ndarray:
    """The probe's roots over their integral on [0,1], constant beyond the first and the last."""
    if not fit.probe_t:
        return np.array([])
    grid = np.linspace(0, 1, 2001)
    return np.asarray(fit.probe_root) / np.interp(grid, fit.probe_t, fit.probe_root).mean()


def _shares(parts: Parts) -> dict[str, float]:
    """Widths of the bars, sum 1."""
    values = {name: max(0.0, getattr(parts, name).value) for name in PART_COLOURS}
    whole = sum(values.values()) or 1.0
    return {name: value / whole for name, value in values.items()}


def _dot(
    axes: "matplotlib.axes.Axes", figure: Figure, place: float, tint: str, *, filled: bool
) -> None:
    axes.plot([figure.low, figure.high], [place, place], color=tint, lw=1.6 if filled else 1)
    face = tint if filled else "white"
    axes.plot(figure.value, place, "o", ms=5 if filled else 4, mec=tint, mfc=face)


def _band(
    axes: "matplotlib.axes.Axes", t: Sequence[float], values: Sequence[Figure], tint: str
) -> None:
    low, high = [value.low for value in values], [value.high for value in values]
    axes.fill_between(t, low, high, color=tint, alpha=0.18, lw=0)
    axes.plot(t, [value.value for value in values], color=tint, lw=1.6, marker="o", ms=3)


def _logarithmic_if_wide(axes: "matplotlib.axes.Axes", values: Sequence[Figure]) -> None:
    middle = [value.value for value in values]
    least, most = min(middle), max(middle)
    if least <= 0 or most < _LOG_FROM * least:
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        return
    axes.set_yscale("log", nonpositive="clip")
    # An interval that reaches 0 must not stretch the scale.
    axes.set_ylim(bottom=max(least / 3, axes.get_ylim()[0]))


def _plain_ticks(axis: "matplotlib.axis.Axis", most: int = 9) -> None:
    """0.5, 0.7, 1, 1.5, … on a logarithmic axis: the finest series of at most so many ticks."""
    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    series: tuple[tuple[float, ...], ...] = ((1, 1.5, 2, 3, 5, 7), (1, 2, 5))
    subs = next((one for one in series if decades * len(one) <= most), (1.0,))
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
