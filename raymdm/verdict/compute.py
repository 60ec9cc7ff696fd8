"""Compute per arm: the forward and backward passes that its runs counted, and their time."""

from math import nan
from typing import Any

import pandas as pd

from raymdm.verdict.cells import Cell
from raymdm.verdict.results import Results
from raymdm.verdict.run_files import PASSES
from raymdm.verdict.wording import NOTHING

COMPUTE_HEADINGS = (
    ("compute per run", ""),
    ("forwards", "of them probe"),
    ("backwards", ""),
    ("of the baseline's", "forwards"),
    ("seconds", "of training"),
)
"""Title and subtitle of every column."""

UNEQUAL = 0.02
"""Arms whose forwards differ by a larger share than this do not have equal compute."""


def compute_per_arm(results: Results, baseline: str) -> list[dict[str, Any]]:
    """Means over the finished runs of every arm and setting, in the order of the design.

    Returns:
        Mappings of arm, setting, `PASSES`, seconds and forwards_ratio (over the baseline's in the
        same setting; NaN where that is unknown). Empty where no run counted.
    """
    runs = results.runs
    if "forwards" not in runs:
        return []
    done = runs[(runs["state"] == "finished") & runs["forwards"].notna()]
    means = done.groupby(["setting", "arm"], sort=False)[[*PASSES, "seconds"]].mean()
    rows = []
    for setting in results.settings:
        against = _forwards(means, setting, baseline)
        for arm in results.arms:
            if (setting, arm) in means.index:
                values = {name: float(value) for name, value in means.loc[(setting, arm)].items()}
                values["forwards_ratio"] = values["forwards"] / against
                rows.append({"arm": arm, "setting": setting, **values})
    return rows


def compute_cells(row: dict[str, Any]) -> list[Cell]:
    """One row's cells, in the order of `COMPUTE_HEADINGS`."""
    ratio = row["forwards_ratio"]
    return [
        Cell(row["arm"], row["setting"]),
        Cell(_count(row["forwards"]), _count(row["probe_forwards"])),
        Cell(_count(row["backwards"])),
        Cell(NOTHING if ratio != ratio else f"{ratio:.2f} ×"),
        Cell(NOTHING if row["seconds"] != row["seconds"] else f"{row['seconds']:.0f}"),
    ]


def unequal_compute(rows: list[dict[str, Any]], baseline: str) -> str | None:
    """A note on arms that had more or less to compute than the baseline; None where none had."""
    shown = {
        row["arm"]: f"{row['arm']} {row['forwards_ratio']:.2f} ×"
        for row in rows
        if abs(row["forwards_ratio"] - 1) > UNEQUAL
    }
    if not shown:
        return None
    return f"unequal compute, in forwards of {baseline}: {', '.join(shown.values())}"


def _forwards(means: pd.DataFrame, setting: str, arm: str) -> float:
    known = (setting, arm) in means.index
    return float(means.loc[(setting, arm), "forwards"]) if known else nan


def _count(value: float) -> str:
    return NOTHING if value != value else f"{value:,.0f}"
