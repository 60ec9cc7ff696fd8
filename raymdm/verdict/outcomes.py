"""What became of each run: its score, or that it diverged, or that it was lost."""

from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from raymdm.errors import DataError
from raymdm.verdict.statistics import Scores

LOST = ("failed", "missing", "interrupted", "running", "pending")
"""States of a run that gave no outcome; together they make `n_failed`."""


@dataclass(frozen=True)
class Outcomes:
    """One arm's runs."""

    scores: Scores
    """Of the finished runs."""
    seeds: tuple[Any, ...]
    """Theirs, in the same order."""
    n_diverged: int
    n_failed: int


def outcomes(rows: pd.DataFrame) -> Outcomes:
    """What became of one arm's rows, as `one_row_per_run` gives them."""
    lost = rows["state"].isin(LOST)
    finished = ~lost & (rows["state"] != "diverged") & np.isfinite(rows["score"])
    return Outcomes(
        rows.loc[finished, "score"].to_numpy(float),
        tuple(rows.loc[finished, "seed"].tolist()),
        int((~lost & ~finished).sum()),
        int(lost.sum()),
    )


def one_row_per_run(df: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Columns arm, seed, score, state; items averaged. Raises DataError."""
    for column in ("arm", "seed", metric):
        if column not in df.columns:
            found = ", ".join(map(str, df.columns))
            raise DataError(f"the table has no column {column!r}; it has {found}")
    if not len(df):
        raise DataError("the table has no runs")
    try:
        scores = pd.to_numeric(df[metric]).to_numpy(float, na_value=nan)
    except (ValueError, TypeError) as error:
        raise DataError(f"column {metric!r} is not numeric: {error}") from error
    runs = pd.DataFrame({"arm": df["arm"].astype(str).to_numpy(), "seed": df["seed"].to_numpy()})
    runs["score"] = scores
    runs["state"] = df["state"].to_numpy() if "state" in df.columns else "finished"
    runs["state"] = runs["state"].fillna("finished")
    unknown = sorted(set(runs["state"]) - {"finished", "diverged", *LOST})
    if unknown:
        raise DataError(f"unknown state {unknown[0]!r}: use finished, diverged or failed")
    if "item" in df.columns:
        runs = runs.groupby(["arm", "seed"], sort=False, as_index=False).agg(
            # One item that is not a number makes the run's score not a number.
            {"score": lambda items: items.mean(skipna=False), "state": "first"}
        )
    twice = runs[runs.duplicated(["arm", "seed"])]
    if len(twice):
        arm, seed = twice.iloc[0][["arm", "seed"]]
        raise DataError(
            f"arm {arm!r} has seed {seed} twice: the seed is the replicate, one run for each"
        )
    return runs
