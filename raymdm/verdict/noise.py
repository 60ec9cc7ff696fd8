"""Where the noise of an arm's training came from: masks, mask rates or data.

From the columns that every run writes while it trains (`diffusion/stream.py`): parts of the
variance of one row's weighted loss. With one view of a row its masks and its data come as one.
"""

from math import isfinite, nan
from typing import Any

import numpy as np
import pandas as pd

from raymdm.verdict.cells import Cell
from raymdm.verdict.results import Results
from raymdm.verdict.run_files import NOISE_COLUMNS
from raymdm.verdict.wording import NOTHING

LAST_PART = 0.25
"""Share of a run's steps, the last ones, that its figures are means over."""

PARTS = {
    "views": "variance_between_views",
    "rates": "variance_between_rates",
    "rows": "variance_between_rows",
}

NOISE_HEADINGS = (
    ("noise", ""),
    ("variance of a row's loss", "± sd between seeds"),
    ("masks (A)", "share"),
    ("mask rates (B)", "share"),
    ("data (C)", "share"),
    ("effective sample size", "largest weight"),
    ("gradient norm", "± sd between seeds"),
)
"""Title and subtitle of every column."""

NOISE_CAPTION = (
    f"Means over the last {LAST_PART:.0%} of the steps of the finished runs. The variance is that "
    "of one row's weighted loss, averaged over its views; a step's loss averages a batch of them. "
    "B is the main effect of the mask rate, all that spreading the rates evenly over a batch "
    "removes; how rate and row act together is counted in C. A is what the views of a row show: "
    "with one view (or a complementary pair, whose rates differ as well) it cannot be told apart "
    "and is in C, and correlated views (mirror) show only the part of A in which they differ. An "
    "autoregressive arm masks nothing: its B is zero up to chance, its C the data alone. Parts are "
    "estimated without bias, so a small one may come out below zero; the picture leaves such "
    "a part out."
)


def noise_per_arm(results: Results) -> list[dict[str, Any]]:
    """Parts of the variance in every arm and setting, in the order of the design.

    Returns:
        Mappings of arm, setting, runs (how many were measured), total, views, rates and rows (in
        squared nats), effective_sample_size, weight_max and gradient_norm, each but the first three
        a mapping of mean and sd over the runs, the parts with their share of the total too.
        Undefined numbers are NaN. Empty where no run measured its noise.
    """
    runs = results.runs
    finished = runs[runs["state"] == "finished"][["arm", "seed", "setting"]]
    curves = results.curves.merge(finished, on=["arm", "seed", "setting"])
    # Only pandas' own floats: a column that nobody measured may come as objects.
    curves = curves.astype(dict.fromkeys(NOISE_COLUMNS, float))
    last = curves.groupby(["setting", "arm", "seed"], sort=False)["step"].transform("max")
    late = curves[curves["step"] > (1 - LAST_PART) * last]
    means = late.groupby(["setting", "arm", "seed"], sort=False)[list(NOISE_COLUMNS)].mean()
    means["total"] = means[list(PARTS.values())].sum(axis=1, min_count=1)
    means = means[means["total"].notna()]
    found = dict(iter(means.groupby(["setting", "arm"], sort=False)))
    return [
        {"arm": arm, "setting": setting, **_arm(found[setting, arm])}
        for setting in results.settings
        for arm in results.arms
        if (setting, arm) in found
    ]


def _arm(runs: pd.DataFrame) -> dict[str, Any]:
    """One arm's figures from its runs, a row each."""
    total = _over_runs(runs["total"])
    row: dict[str, Any] = {"runs": len(runs), "total": total}
    for name, column in PARTS.items():
        part = _over_runs(runs[column])
        row[name] = {**part, "share": part["mean"] / total["mean"] if total["mean"] > 0 else nan}
    for name in ("effective_sample_size", "weight_max", "gradient_norm"):
        row[name] = _over_runs(runs[name])
    return row


def _over_runs(values: "pd.Series[float]") -> dict[str, float]:
    known = values[np.isfinite(values)]
    sd = float(known.std(ddof=1)) if len(known) > 1 else nan
    return {"mean": float(known.mean()) if len(known) else nan, "sd": sd}


def noise_cells(row: dict[str, Any]) -> list[Cell]:
    """One row's cells, in the order of `NOISE_HEADINGS`."""
    return [
        Cell(row["arm"], row["setting"]),
        _with_sd(row["total"]),
        *(_part(row[name], name) for name in PARTS),
        Cell(_percent(row["effective_sample_size"]["mean"]), _shown(row["weight_max"]["mean"])),
        _with_sd(row["gradient_norm"]),
    ]


def _part(part: dict[str, float], name: str) -> Cell:
    if name == "views" and not isfinite(part["mean"]):
        return Cell(NOTHING, "within C")
    return Cell(_shown(part["mean"]), _percent(part["share"]))


def _with_sd(value: dict[str, float]) -> Cell:
    return Cell(_shown(value["mean"]), f"± {_shown(value['sd'])}")


def _shown(value: float) -> str:
    return f"{value:.3g}" if isfinite(value) else NOTHING


def _percent(share: float) -> str:
    return f"{share:.0%}" if isfinite(share) else NOTHING
