"""What the training stream itself says about its noise: moments of the rows' losses by bins of t.

Every step yields (t, weight, losses of the views) of N rows for free. Summed by bins of t, with
exponential forgetting, they give a live decomposition of the variance of the weighted row loss
z = w l, and the second moments that the adaptive density `ap` is fitted to (ours; the paper names
adaptive densities as future work).
"""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from raymdm.diffusion.density import CELLS, TimeDensity

_SUMS = ("count", "squared_count", "weight", "first", "second", "square", "views")


class LiveParts(NamedTuple):
    """Parts of the variance of one row's weighted loss, averaged over its views.

    Attributes:
        views: from the masks, as the spread of the views shows it; NaN with one view. Views that
            are correlated (MIRROR) spread by (1 - rho) of what the masks add; the rest is in rows.
        rates: from the main effect of t, all that stratifying t removes.
        rows: the rest: rows, their interaction with t, and with one view the masks.
    """

    views: float
    rates: float
    rows: float


@dataclass
class StreamMoments:
    """Forgetting sums over the rows of all steps so far, in bins that are finer towards t = 0.

    Attributes:
        bins: how many were asked for; very fine ones are merged to whole cells of a density.
        forgetting: weight of the past, per step.
        sums: float64[7, bins].
    """

    bins: int
    forgetting: float
    sums: np.ndarray = field(default_factory=lambda: np.empty(0))
    several_views: bool = False

    def __post_init__(self) -> None:
        self.edges = np.unique(np.round(CELLS * np.linspace(0, 1, self.bins + 1) ** 2).astype(int))
        if not self.sums.size:
            self.sums = np.zeros((len(_SUMS), len(self.edges) - 1))

    def update(self, t: np.ndarray, weight: np.ndarray, view_losses: np.ndarray) -> None:
        """Take in a step: t[N], importance weights[N] and view losses[K, N], in slot order.

        The losses are those whose weighted mean over the N rows is the step's loss.
        """
        cell = np.minimum((t * CELLS).astype(np.int64), CELLS - 1)
        index = np.searchsorted(self.edges, cell, side="right") - 1
        losses = view_losses.mean(0)
        views = len(view_losses)
        self.several_views = views > 1
        spread = view_losses.var(0, ddof=1) / views if views > 1 else np.zeros_like(losses)
        now = {
            "count": np.ones_like(t),
            "squared_count": np.ones_like(t),
            "weight": weight,
            "first": weight * losses,
            "second": weight * losses**2,
            "square": (weight * losses) ** 2,
            "views": weight**2 * spread,
        }
        forgotten = np.full((len(_SUMS), 1), self.forgetting)
        forgotten[_SUMS.index("squared_count")] **= 2
        self.sums = self.sums * forgotten + np.stack(
            [np.bincount(index, now[name], minlength=self.sums.shape[1]) for name in _SUMS]
        )

    def parts(self) -> LiveParts:
        """The decomposition, unbiased up to the width of the bins; NaN until there is enough."""
        count, squared, first, square, views = self._of(
            "count", "squared_count", "first", "square", "views"
        )
        # Rows that a bin's mean is worth: forgetting makes late ones count for more.
        worth = np.divide(count**2, squared, out=np.zeros_like(count), where=squared > 0)
        known = worth > 1
        if known.sum() < 2:
            return LiveParts(np.nan, np.nan, np.nan)
        share = count[known] / count[known].sum()
        mean = first[known] / count[known]
        inside = (square[known] / count[known] - mean**2) * worth[known] / (worth[known] - 1)
        spread = share @ (mean - share @ mean) ** 2
        # Means of few rows scatter by themselves; that is not the effect of t.
        rates = spread - share @ ((1 - share) * inside / worth[known])
        between_views = float(share @ (views[known] / count[known]))
        if not self.several_views:
            return LiveParts(np.nan, float(rates), float(share @ inside))
        return LiveParts(between_views, float(rates), float(share @ inside) - between_views)

    def density(self, target: Literal["iid", "stratified"], mixing: float) -> TimeDensity | None:
        """The density that minimises the variance of what was seen; None until most bins are known.

        f ∝ sqrt(E[l²|t]) for independent rates, sqrt(Var(l|t)) for stratified ones, importance
        corrected within each bin. Near t = 0 most masks are empty: a bin that has seen no loss yet
        takes its value from its neighbours.
        """
        weight, first, second = self._of("weight", "first", "second")
        known = second > 0
        if known.mean() <= 0.5 or not np.isfinite(second).all():
            return None
        moments = second[known] / weight[known]
        if target == "stratified":
            mean_square = (first[known] / weight[known]) ** 2
            moments = np.maximum(moments - mean_square, 0.01 * moments)
        places = np.arange(len(known))
        moments = np.exp(np.interp(places, places[known], np.log(moments)))
        cells: np.ndarray = np.repeat(np.sqrt(moments), np.diff(self.edges))
        return TimeDensity(cells, {"kind": "ap", "target": target}).mixed(mixing)

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"sums": self.sums.tolist(), "several_views": self.several_views}

    def restore(self, state: dict[str, Any]) -> None:
        """As it was saved."""
        self.sums = np.array(state["sums"], dtype=np.float64)
        self.several_views = state["several_views"]

    def _of(self, *names: str) -> list[np.ndarray]:
        return [self.sums[_SUMS.index(name)] for name in names]


def effective_sample_size(weight: np.ndarray) -> float:
    """(sum w)² / (N sum w²), in (0, 1]: the share of the batch that the weights leave."""
    return float(weight.sum() ** 2 / (len(weight) * (weight**2).sum()))


def drift(before: TimeDensity, after: TimeDensity) -> float:
    """Total variation distance of two densities with equally many cells, in [0, 1]."""
    return float(np.abs(before.cells - after.cells).mean() / 2)
