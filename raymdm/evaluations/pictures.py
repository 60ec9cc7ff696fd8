"""Pictures of a report: whether long items are answered worse."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.ticker import MaxNLocator, PercentFormatter

from raymdm.verdict.items import wilson
from raymdm.verdict.plots import COLOURS, as_svg, new_figure

ITEMS_PER_BIN = 15
MOST_BINS = 6
FEWEST_BINS = 3


def accuracy_by_length(items: pd.DataFrame) -> Iterator[str]:
    """Accuracy against the lengths of the prompt and of the reference response, as SVG.

    Where the items have no reference response its place is taken by what was written. Lengths that
    hardly vary, and sets too small for three bins, are left out.
    """
    lengths = {}
    if "prompt" in items:
        lengths["prompt, characters"] = items["prompt"].str.len()
    if "tokens" in items:
        lengths["reference response, tokens"] = items["tokens"]
    else:
        lengths["written response, characters"] = items["response"].str.len()
    correct = items["correct"].to_numpy(dtype=float)
    for label, column in lengths.items():
        values = column.to_numpy(dtype=float)
        bins = equal_bins(values)
        if bins:
            yield _picture(values, correct, bins, label)


def equal_bins(values: npt.NDArray[np.float64]) -> list[npt.NDArray[np.intp]]:
    """Indices of the values in up to `MOST_BINS` bins of about as many items, from low to high.

    Equal values share a bin. Empty where fewer than `FEWEST_BINS` bins of `ITEMS_PER_BIN` are left.
    """
    wanted = min(MOST_BINS, len(values) // ITEMS_PER_BIN)
    if wanted < FEWEST_BINS or not np.isfinite(values).all():
        return []
    inner = np.unique(np.quantile(values, np.linspace(0, 1, wanted + 1)[1:-1]))
    places = np.searchsorted(inner, values)
    bins = [np.flatnonzero(places == place) for place in range(len(inner) + 1)]
    bins = [indices for indices in bins if len(indices) >= ITEMS_PER_BIN // 2]
    return bins if len(bins) >= FEWEST_BINS else []


def _picture(
    values: npt.NDArray[np.float64],
    correct: npt.NDArray[np.float64],
    bins: list[npt.NDArray[np.intp]],
    label: str,
) -> str:
    figure, axes = new_figure(2.6)
    for indices in bins:
        middle, share = values[indices].mean(), correct[indices].mean()
        low, high = wilson(correct[indices])
        axes.plot([middle, middle], [low, high], color=COLOURS[1], lw=2)
        axes.plot(middle, share, "o", ms=6, color=COLOURS[1])
        axes.plot(
            [values[indices].min(), values[indices].max()], [share, share], color=COLOURS[1], lw=0.8
        )
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel(label)
    axes.set_ylabel("accuracy")
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    return as_svg(figure, f"Accuracy by length of the {label}")
