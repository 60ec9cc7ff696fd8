"""Pictures of a run of rounds as inline SVG; None where nothing of the kind was measured.

What a round measures is noisy: it is drawn faintly, its running mean on top.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from raymdm.verdict.plots import as_svg, new_figure

RUNNING_SHARE = 0.05
"""A running mean is over this share of the rounds, and at least `LEAST_RUNNING` of them."""
LEAST_RUNNING = 5
COMPARED_SHARE = 0.1
"""The first and the last rounds that are held against each other: this share of them each."""
MOST_BARS = 60
MOST_POINTS = 500
"""Of a line; of more rounds some are left out, so that pages stay small."""

_BLUE, _RED, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
_GRID = "#e6e6e6"
_PARTS = {
    "rollout_seconds": ("rollouts", "#0072B2"),
    "reward_seconds": ("rewards", "#E69F00"),
    "training_seconds": ("training", "#009E73"),
}


def measured(rounds: pd.DataFrame, column: str) -> "pd.Series[float]":
    """The finite values of a column by round; none where there is no such column."""
    if column not in rounds:
        return pd.Series(dtype=float)
    values = pd.to_numeric(rounds[column], errors="coerce").astype(float)
    return values[np.isfinite(values)]


def ends(rounds: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The first and the last rounds, which overlap in a run of one."""
    count = max(1, round(COMPARED_SHARE * len(rounds)))
    return rounds.head(count), rounds.tail(count)


def reward_plot(rounds: pd.DataFrame) -> str | None:
    """The rollouts' mean reward over the rounds, and the held-out one."""
    rollouts, held_out = measured(rounds, "reward"), measured(rounds, "validation_reward")
    if not len(rollouts) and not len(held_out):
        return None
    figure, axes = new_figure(3.0)
    if len(rollouts):
        _running(axes, rollouts, _BLUE, "rollouts")
    if len(held_out):
        axes.plot(held_out, color=_RED, lw=1.6, marker="o", ms=4, label="held out")
    _finish(axes, "reward")
    axes.legend(frameon=False, loc="best")
    return as_svg(figure, "Reward over the rounds")


def curve_plot(
    rounds: pd.DataFrame, column: str, label: str, *, percent: bool = False
) -> str | None:
    """One column over the rounds."""
    values = measured(rounds, column)
    if not len(values):
        return None
    figure, axes = new_figure(2.3)
    _running(axes, values, _BLUE, None)
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    _finish(axes, label)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    return as_svg(figure, f"{label} over the rounds")


def by_step_plot(rounds: pd.DataFrame) -> str | None:
    """Mean reward of every denoising step's text, in the first rounds and in the last."""
    name = "reward_by_denoising_step"
    found = rounds[rounds[name].map(_is_row)] if name in rounds else rounds.head(0)
    if not len(found):
        return None
    first, last = (_mean_row(part[name]) for part in ends(found))
    figure, axes = new_figure(2.8)
    if len(found) > 1:
        steps = np.arange(1, len(first) + 1)
        marker = "o" if len(first) <= 30 else ""
        axes.plot(steps, first, color=_GREY, lw=1.6, marker=marker, ms=3, label="first rounds")
    steps = np.arange(1, len(last) + 1)
    marker = "o" if len(last) <= 30 else ""
    axes.plot(steps, last, color=_BLUE, lw=1.6, marker=marker, ms=3, label="last rounds")
    _finish(axes, "reward of the step's text", "denoising step")
    axes.legend(frameon=False, loc="best")
    return as_svg(figure, "Reward by denoising step")


def ratio_plot(rounds: pd.DataFrame) -> str | None:
    """Mean of the ratios, with a band of one standard deviation."""
    mean = _thinned(measured(rounds, "ratio_mean"))
    deviation = measured(rounds, "ratio_deviation")
    if not len(mean):
        return None
    figure, axes = new_figure(2.3)
    axes.axhline(1, color=_GREY, lw=1)
    band = deviation.reindex(mean.index).fillna(0.0)
    axes.fill_between(mean.index, mean - band, mean + band, color=_BLUE, alpha=0.18, lw=0)
    axes.plot(mean, color=_BLUE, lw=1.2, marker="o" if len(mean) <= 30 else "", ms=3)
    _finish(axes, "ratio to the behaviour")
    return as_svg(figure, "Ratio of new to old probabilities over the rounds")


def seconds_plot(rounds: pd.DataFrame) -> str | None:
    """Seconds of a round by part, stacked; of many rounds a bar is a mean over neighbours."""
    parts = {name: measured(rounds, name) for name in _PARTS}
    parts = {name: values for name, values in parts.items() if len(values)}
    if not parts:
        return None
    table = pd.DataFrame(parts).sort_index().fillna(0.0)
    group: np.ndarray = np.arange(len(table)) * min(MOST_BARS, len(table)) // len(table)
    places = table.index.to_series().groupby(group).mean()
    means = table.groupby(group).mean()
    width = 0.85 * float(places.diff().median() if len(places) > 1 else 1.0)
    figure, axes = new_figure(2.6)
    below = np.zeros(len(means))
    for name, values in means.items():
        label, tint = _PARTS[str(name)]
        axes.bar(places, values, bottom=below, width=width, color=tint, label=label)
        below += values.to_numpy()
    _finish(axes, "seconds a round")
    figure.legend(frameon=False, loc="outside upper center", ncols=len(parts), fontsize=9)
    return as_svg(figure, "Seconds of a round by part")


def _running(axes: Axes, values: "pd.Series[float]", tint: str, label: str | None) -> None:
    window = max(LEAST_RUNNING, round(RUNNING_SHARE * len(values)))
    if len(values) <= window:
        axes.plot(values, color=tint, lw=1.6, marker="o", ms=3, label=label)
        return
    running = values.rolling(window, min_periods=1).mean()
    axes.plot(_thinned(values), color=tint, lw=0.8, alpha=0.35)
    axes.plot(_thinned(running), color=tint, lw=1.6, label=label)


def _thinned(values: "pd.Series[float]") -> "pd.Series[float]":
    """At most `MOST_POINTS` of them, first and last included."""
    if len(values) <= MOST_POINTS:
        return values
    return values.iloc[np.linspace(0, len(values) - 1, MOST_POINTS).round().astype(int)]


def _finish(axes: Axes, label: str, across: str = "round") -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.grid(color=_GRID, lw=0.8)
    axes.set_axisbelow(True)


def _is_row(value: object) -> bool:
    return isinstance(value, list | tuple | np.ndarray) and len(value) > 0


def _mean_row(rows: "pd.Series[Sequence[float]]") -> np.ndarray:
    """The mean over rows as long as the last of them."""
    alike = [np.asarray(row, dtype=float) for row in rows if len(row) == len(rows.iloc[-1])]
    return np.asarray(np.mean(alike, axis=0))
