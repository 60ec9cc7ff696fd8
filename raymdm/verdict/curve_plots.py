"""Pictures of training as inline SVG: curves with bands over the seeds, the parts of the noise."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from raymdm.verdict.noise import PARTS
from raymdm.verdict.plots import as_svg, colours, new_figure, new_panels, short

MOST_POINTS = 400
SMOOTHED_SHARE = 0.02
"""The training loss is averaged over this share of the run's steps."""
MOST_TOGETHER = 4
"""Arms that one panel can show; of more, each has a panel of its own with the baseline in it."""

PART_COLOURS = {"views": "#0072B2", "rates": "#E69F00", "rows": "#999999"}
_PART_NAMES = {"views": "masks (A)", "rates": "mask rates (B)", "rows": "data (C)"}


def curve_plot(curves: pd.DataFrame, column: str, arms: Sequence[str], label: str) -> str | None:
    """Mean over the seeds of `column` against the step, with a band from least to greatest.

    `curves` has arm, seed, step and the column; the first of the arms is the baseline. None where
    no arm has two measured steps.
    """
    found = {arm: seed_band(curves[curves["arm"] == arm], column) for arm in arms}
    bands = {arm: band for arm, band in found.items() if len(band) > 1}
    if not bands:
        return None
    tints = colours(arms)
    baseline, *others = bands
    if len(bands) <= MOST_TOGETHER:
        figure, axes = new_figure(3.2)
        panels, shown = [axes], [list(bands)]
    else:
        rows = (len(others) + 1) // 2
        figure, panels = new_panels(0.5 + 1.55 * rows, rows, 2, share=True)
        shown = [[baseline, arm] for arm in others]
    for axes, group in zip(panels, shown, strict=False):
        for arm in group:
            _draw(axes, bands[arm], arm, tints[arm])
        axes.xaxis.set_major_locator(MaxNLocator(6 if len(panels) == 1 else 3, integer=True))
        axes.grid(color="#e6e6e6", lw=0.8)
        if len(panels) > 1:
            axes.set_title(short(group[1]), fontsize=10, color=tints[group[1]], loc="left")
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    _cut(panels[0], list(bands.values()))
    if len(panels) == 1:
        panels[0].set_xlabel("optimiser step")
        panels[0].set_ylabel(label)
        panels[0].legend(frameon=False, loc="best")
    else:
        figure.supxlabel("optimiser step", fontsize=10, color="#444444")
        figure.supylabel(label, fontsize=10, color="#444444")
        figure.suptitle(f"grey: {short(baseline)}", fontsize=10, color=tints[baseline])
    return as_svg(figure, f"{label} over the optimiser steps")


def noise_plot(rows: Sequence[dict[str, Any]]) -> str:
    """A bar for every arm: the parts of the variance of a row's loss, stacked.

    Args:
        rows: as `noise_per_arm` gives them, those of one setting.
    """
    figure, axes = new_figure(0.9 + 0.32 * len(rows))
    left = np.zeros(len(rows))
    for name in PARTS:
        # An unbiased estimate of a small part may be negative, and NaN is a part of another.
        width = np.array([max(0.0, np.nan_to_num(row[name]["mean"])) for row in rows])
        axes.barh(
            range(len(rows)),
            width,
            left=left,
            height=0.62,
            color=PART_COLOURS[name],
            label=_PART_NAMES[name],
        )
        left += width
    axes.set_yticks(range(len(rows)), [short(row["arm"]) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("variance of one row's weighted loss (nats²)")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    figure.legend(frameon=False, loc="outside upper center", ncols=3, fontsize=9)
    return as_svg(figure, "Parts of the variance of a row's loss")


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


def _draw(axes: Axes, band: pd.DataFrame, arm: str, tint: str) -> None:
    marker = "o" if len(band) <= 30 else ""
    axes.fill_between(band.index, band["min"], band["max"], color=tint, alpha=0.16, lw=0)
    axes.plot(band.index, band["mean"], color=tint, lw=1.6, marker=marker, ms=3, label=arm)


def _cut(axes: Axes, bands: Sequence[pd.DataFrame]) -> None:
    """The first steps, or one that blew up, must not flatten everything else."""
    low, high = axes.get_ylim()
    top = max(float(np.nanquantile(band["max"], 0.98)) for band in bands)
    axes.set_ylim(low, min(high, top + 0.15 * (top - low)))
