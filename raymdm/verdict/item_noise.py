"""Scores item by item: how much of the noise comes from the test items rather than the seeds."""

from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
import numpy.typing as npt
import pandas as pd

from raymdm.verdict.statistics import UNDEFINED, Interval, Scores

CROSSED_DRAWS = 4000
_CHUNK = 250
"""Resamplings of the items at a time: bounds the memory."""


@dataclass(frozen=True)
class ItemScores:
    """Every run's score on every item; all runs of a comparison are scored on the same ones.

    A run's score is the weighted mean over the items.
    """

    arms: tuple[str, ...]
    """Arm of every run."""
    seeds: tuple[str, ...]
    """Seed of every run, as text."""
    values: npt.NDArray[np.float64]
    """[runs, items]."""
    weights: npt.NDArray[np.float64]
    """[items]: 1, or the tokens of an item where the score is per token."""

    def of(self, arm: str) -> npt.NDArray[np.float64]:
        """The values of one arm's runs, [runs of it, items]."""
        return self.values[[index for index, name in enumerate(self.arms) if name == arm]]


def item_scores(df: pd.DataFrame, metric: str, runs: pd.DataFrame) -> ItemScores | None:
    """The scores item by item of the finished runs as a matrix.

    Args:
        df: a row per run and item: arm, seed, item, the score, optionally `weight`.
        metric: column of the score.
        runs: a row per run: arm, seed, state and `score`, which the items must average to.

    Returns:
        None where the finished runs were not all scored once on the same items, fewer than two of
        them or with other scores: then items cannot be told from seeds.
    """
    ended = runs[(runs["state"] == "finished") & np.isfinite(runs["score"])]
    scores = {(str(run.arm), str(run.seed)): float(run.score) for run in ended.itertuples()}
    here = [
        pair in scores for pair in zip(df["arm"].astype(str), df["seed"].astype(str), strict=True)
    ]
    long = df[here]
    keys = [long["arm"].astype(str), long["seed"].astype(str), long["item"].astype(str)]
    if not len(long) or pd.MultiIndex.from_arrays(keys).duplicated().any():
        return None
    indexed = long.set_index(keys)
    wide = indexed[metric].unstack(level=2)
    if len(wide) < len(scores) or wide.shape[1] < 2 or wide.isna().to_numpy().any():
        return None
    weights = np.ones(wide.shape[1])
    if "weight" in long:
        by_item = indexed["weight"].groupby(level=2).agg(["min", "max"]).reindex(wide.columns)
        if (by_item["min"] != by_item["max"]).any() or not (by_item["min"] > 0).all():
            return None
        weights = by_item["min"].to_numpy(float)
    values = wide.to_numpy(float)
    means, expected = values @ weights / weights.sum(), [scores[pair] for pair in wide.index]
    if not np.allclose(means, expected, rtol=1e-5):
        return None
    arms, seeds = zip(*wide.index, strict=True)
    return ItemScores(arms, seeds, values, weights)


def item_noise(values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> float:
    """Part of the standard deviation between runs that the finite number of items causes.

    The runs `values[n, J]` of one arm share the items, so how hard an item is for all of them
    cancels; what is left of run × item (the residual of the two-way layout) moves a run's score by
    √(residual variance / J). The variance between the runs' scores contains its square: with
    infinitely many items the seeds' standard deviation would be smaller by that. NaN below two
    runs.
    """
    runs, items = values.shape
    if runs < 2 or items < 2:
        return nan
    # Linear in the items, the weighted mean is a plain mean of these.
    means = values @ weights / weights.sum()
    parts = weights / weights.mean() * (values - means[:, None])
    residuals = parts - parts.mean(axis=0)
    residuals = residuals - residuals.mean(axis=1, keepdims=True)
    variance = float((residuals**2).sum()) / ((runs - 1) * (items - 1))
    return sqrt(variance / items)


def binomial_noise(accuracy: float, items: int) -> float:
    """Standard deviation of an accuracy from so many items, were each a coin of its own.

    An upper bound for `item_noise`, for runs without their item tables: items that all runs solve
    count as noise here.
    """
    if not items or not 0 <= accuracy <= 1:
        return nan
    return sqrt(accuracy * (1 - accuracy) / items)


def crossed(
    first: npt.NDArray[np.float64],
    second: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    draws: int = CROSSED_DRAWS,
) -> Interval:
    """Bootstrap over seeds × items: 95% percentile interval of mean(first) - mean(second).

    In every draw the items are resampled once for all runs, then the runs of each arm, separately
    (Owen 2007, Ann. Appl. Stat. 1). It speaks of other items as well as other seeds, the plain
    intervals of other seeds on these items. Draws of items are the same for every pair of arms.

    Args:
        first: [n, J], scores of the runs of one arm on J items.
        second: [m, J].
        weights: [J].
        draws: bootstrap samples.

    Returns:
        Low and high; NaN below two runs a side.
    """
    if min(len(first), len(second)) < 2:
        return UNDEFINED
    items, seeds = (np.random.default_rng([0, stream]) for stream in (1, 2))
    scores = resampled_scores(np.concatenate([first, second]), weights, draws, items)
    means = [
        resampled_means(scores[:, : len(first)], seeds),
        resampled_means(scores[:, len(first) :], seeds),
    ]
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return float(low), float(high)


def resampled_scores(
    values: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    draws: int,
    random: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Scores [draws, runs] of `values[runs, J]` on items drawn again, the same for all runs."""
    size = values.shape[1]
    totals = (values * weights).T
    found = []
    for start in range(0, draws, _CHUNK):
        rows = min(_CHUNK, draws - start)
        drawn = random.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
        found.append((counts @ totals) / (counts @ weights)[:, None])
    return np.concatenate(found)


def resampled_means(scores: Scores, random: np.random.Generator) -> Scores:
    """Means [draws] over runs drawn again, anew in each row of `scores[draws, n]`."""
    chosen = random.integers(scores.shape[1], size=scores.shape)
    return np.take_along_axis(scores, chosen, axis=1).mean(axis=1)
