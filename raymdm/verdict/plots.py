"""Pictures as inline SVG: the seeds of every arm, and what all pictures have in common.

Narrow figures (about 480 CSS pixels), so that they stay legible on a phone and stand side by side
on a desk. Text stays text in the SVG: small files, searchable, in the page's own font.
"""

import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raymdm.verdict.decision import Verdict
from raymdm.verdict.statistics import mean_interval

COLOURS = ("#555555", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255")
"""Okabe and Ito's colours, told apart with colour-blind eyes; the baseline is grey."""

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
    """A colour for every arm, the same in all pictures; the first is the baseline, alone in grey.

    More than seven others share colours: pictures must tell them apart by place as well.
    """
    others = COLOURS[1:]
    return {
        arm: COLOURS[0] if number == 0 else others[(number - 1) % len(others)]
        for number, arm in enumerate(arms)
    }


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


def new_figure(height: float) -> tuple[Figure, "matplotlib.axes.Axes"]:
    """A figure of one panel in the pages' style; height in inches."""
    figure, (axes,) = new_panels(height, 1)
    return figure, axes


def new_panels(
    height: float, rows: int, columns: int = 1, share: bool = False
) -> tuple[Figure, list["matplotlib.axes.Axes"]]:
    """A figure of rows × columns panels, row by row; height of the whole in inches.

    With `share` all panels have the same axes.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        return figure, list(
            figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).flat
        )


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
