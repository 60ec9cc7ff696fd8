"""Pictures as inline SVG: the seeds of every arm, and the curves of training.

Narrow figures (about 480 CSS pixels), so that they stay legible on a phone and stand side by side
on a desk. Text stays text in the SVG: small files, searchable, in the page's own font.
"""

import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raymdm.verdict.decision import Verdict
from raymdm.verdict.statistics import mean_interval

COLOURS = ("#555555", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255")
"""Okabe and Ito's colours, told apart with colour-blind eyes; the baseline is grey."""
MOST_POINTS = 400
SMOOTHED_SHARE = 0.02
"""The training loss is averaged over this share of the run's steps."""

_WIDTH = 5.0
_STYLE = {
    "svg.fonttype": "none",
    # Laid out in matplotlib's own font (always there); the page's style sheet then sets its own.
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": "#444444",
    "axes.formatter.useoffset": False,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}


def colours(arms: Sequence[str]) -> dict[str, str]:
    """A colour for every arm, the same in all pictures; the first is the baseline."""
    return {arm: COLOURS[number % len(COLOURS)] for number, arm in enumerate(arms)}


def seeds_plot(verdict: Verdict, label: str) -> str:
    """Every finished run as a dot, one line per arm, with the mean and its 95% interval."""
    arms = verdict.arms
    tints = colours([row.arm for row in arms])
    figure, axes = new_figure(0.9 + 0.55 * len(arms))
    for place, row in enumerate(arms):
        scores = np.array(row.scores)
        # Dots above, mean and interval below: neither hides the other.
        shift = np.linspace(-0.1, 0.1, len(scores)) if len(scores) > 1 else np.zeros(len(scores))
        axes.scatter(scores, place - 0.16 + shift, s=26, color=tints[row.arm], alpha=0.75, lw=0)
        if len(scores):
            axes.plot(row.mean, place + 0.22, "D", ms=5, color=tints[row.arm])
        if len(scores) > 1:
            low, high = mean_interval(scores)
            axes.plot([low, high], [place + 0.22] * 2, color=tints[row.arm], lw=2)
    axes.set_yticks(range(len(arms)), [_name(row.arm, row.n_diverged, row.n) for row in arms])
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="x", color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    return as_svg(figure, f"Scores of the seeds: {label}")


def curve_plot(curves: pd.DataFrame, column: str, arms: Sequence[str], label: str) -> str | None:
    """Mean over the seeds of `column` against the step, with a band from least to greatest.

    `curves` has arm, seed, step and the column. None where no arm has two measured steps.
    """
    tints = colours(arms)
    figure, axes = new_figure(3.2)
    drawn = False
    tops = []
    for arm in arms:
        band = seed_band(curves[curves["arm"] == arm], column)
        if len(band) < 2:
            continue
        drawn = True
        marker = "o" if len(band) <= 30 else ""
        axes.fill_between(band.index, band["min"], band["max"], color=tints[arm], alpha=0.16, lw=0)
        axes.plot(
            band.index, band["mean"], color=tints[arm], lw=1.6, marker=marker, ms=3, label=arm
        )
        tops.append(float(np.nanquantile(band["max"], 0.98)))
    if not drawn:
        return None
    # The first steps, or one that blew up, must not flatten everything else.
    low, high = axes.get_ylim()
    axes.set_ylim(low, min(high, max(tops) + 0.15 * (max(tops) - low)))
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.legend(frameon=False, loc="best")
    return as_svg(figure, f"{label} over the optimiser steps")


def seed_band(curves: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean, min and max over the seeds of one arm: index step, at most `MOST_POINTS` rows."""
    measured = curves[np.isfinite(curves[column].astype(float))]
    if not len(measured):
        return pd.DataFrame(columns=["mean", "min", "max"])
    by_step = measured.pivot_table(index="step", columns="seed", values=column)
    if column == "loss":
        window = max(1, round(SMOOTHED_SHARE * len(by_step)))
        by_step = by_step.rolling(window, min_periods=1).mean().where(by_step.notna())
    if len(by_step) > MOST_POINTS:
        kept = np.unique(np.linspace(0, len(by_step) - 1, MOST_POINTS).round().astype(int))
        by_step = by_step.iloc[kept]
    return by_step.agg(["mean", "min", "max"], axis="columns")


def new_figure(height: float) -> tuple[Figure, "matplotlib.axes.Axes"]:
    """A figure of one panel in the pages' style; height in inches."""
    figure, (axes,) = new_panels(height, 1)
    return figure, axes


def new_panels(
    height: float, rows: int, columns: int = 1
) -> tuple[Figure, list["matplotlib.axes.Axes"]]:
    """A figure of rows × columns panels, row by row; height of the whole in inches."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def as_svg(figure: Figure, description: str) -> str:
    """The figure as an `<svg>` element for a page: no prologue, no metadata, unique ids."""
    stream = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": description}):
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return re.sub(r"\n\s*", "\n", text).strip()


def short(name: str) -> str:
    """A name that leaves room for the picture beside it."""
    return name if len(name) <= 22 else f"{name[:21]}…"


def _name(arm: str, diverged: int, runs: int) -> str:
    return f"{short(arm)}\ndiverged {diverged}/{runs}" if diverged else short(arm)
