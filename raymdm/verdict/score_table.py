"""Read a table of scores made elsewhere: a CSV file with arm, seed, score and perhaps item."""

import csv
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd

from raymdm.errors import DataError
from raymdm.verdict.outcomes import LOST
from raymdm.verdict.results import NELBO, Metric, Results

STATES = ("finished", "diverged", *LOST)


def read_table(path: str | Path, metric: str = "score", higher_is_better: bool = True) -> Results:
    """The runs in a CSV file; the first arm is the baseline.

    Columns: `arm`, `seed`, the score (named by `metric`), optionally `item` (a run's score is the
    mean over its items) and `state`. `nan`, `inf` or an empty cell mean that the run diverged.

    Raises:
        DataError: no such file, a missing column, or a cell that is not a number, with its line.
    """
    file = Path(path)
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = _read_rows(file, csv.DictReader(stream), metric)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{file}: cannot be read ({reason})") from error
    if not rows:
        raise DataError(f"{file}: no rows below the header")
    frame = pd.DataFrame(rows)
    items = None
    if "item" in frame:
        _refuse_twice(file, frame, ["arm", "seed", "item"])
        items = frame[["arm", "seed", "item", metric]]
        frame = frame.groupby(["arm", "seed"], sort=False, as_index=False).agg(
            {metric: lambda items: items.mean(skipna=False), "state": "first", "line": "first"}
        )
    _refuse_twice(file, frame, ["arm", "seed"])
    frame = frame.drop(columns="line").assign(
        setting="", step0_accuracy=nan, seconds=nan, attempts=1, message="", run_dir=""
    )
    frame["unscored"] = [() for _ in range(len(frame))]
    label = NELBO.label if metric == NELBO.name else metric
    described = Metric(metric, higher_is_better and metric != NELBO.name, label)
    return Results(
        str(file),
        frame,
        (described,),
        metric,
        str(frame["arm"].iloc[0]),
        declared=False,
        item_table=items,
    )


def _read_rows(file: Path, reader: "csv.DictReader[str]", metric: str) -> list[dict[str, Any]]:
    """Checked rows with their line numbers."""
    found = list(reader.fieldnames or [])
    for column in ("arm", "seed", metric):
        if column not in found:
            raise DataError(f"{file}: no column {column!r}; the header has {', '.join(found)}")
    rows = []
    for cells in reader:
        where = f"{file}, line {reader.line_num}"
        text, state = (cells[metric] or "").strip(), (cells.get("state") or "finished").strip()
        try:
            score = float(text) if text else nan
        except ValueError:
            raise DataError(f"{where}: {metric} {text!r} is not a number") from None
        if not cells["arm"]:
            raise DataError(f"{where}: the arm is empty")
        if state not in STATES:
            raise DataError(f"{where}: unknown state {state!r}; use finished, diverged or failed")
        seed = (cells["seed"] or "").strip()
        row = {"arm": cells["arm"].strip(), "seed": int(seed) if seed.isdecimal() else seed}
        row |= {metric: score, "state": state, "line": reader.line_num}
        rows.append(row | ({"item": cells["item"]} if "item" in found else {}))
    return rows


def _refuse_twice(file: Path, frame: pd.DataFrame, keys: list[str]) -> None:
    twice = frame[frame.duplicated(keys)]
    if len(twice):
        row = twice.iloc[0]
        what = ", ".join(f"{key} {row[key]}" for key in keys)
        raise DataError(f"{file}, line {row['line']}: {what} appears a second time")
