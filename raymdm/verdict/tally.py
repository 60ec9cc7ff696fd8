"""What became of every arm's runs: finished, diverged, failed, tried again; where they began."""

from typing import Any

from raymdm.verdict.cells import Cell
from raymdm.verdict.outcomes import LOST
from raymdm.verdict.results import Results
from raymdm.verdict.wording import NOTHING

TALLY_HEADINGS = (
    ("runs", ""),
    ("planned", ""),
    ("finished", ""),
    ("diverged", ""),
    ("failed", ""),
    ("tried again", "attempts more"),
    ("accuracy at step 0", "least to greatest"),
)
"""Title and subtitle of every column."""


def tally(results: Results) -> list[dict[str, Any]]:
    """Counts over the runs of every arm, all its settings together.

    Returns:
        Mappings of arm, planned, finished, diverged, failed, retried (runs with more than one
        attempt), retries (attempts beyond each run's first) and step0_accuracy (a mapping of mean,
        min and max over the runs that measured it, NaN where none did).
    """
    rows = []
    for arm in results.arms:
        runs = results.runs[results.runs["arm"] == arm]
        again = (runs["attempts"] - 1).clip(lower=0)
        start = runs["step0_accuracy"].dropna()
        failed = int(runs["state"].isin(LOST).sum())
        finished = int((runs["state"] == "finished").sum())
        rows.append(
            {
                "arm": arm,
                "planned": len(runs),
                "finished": finished,
                "diverged": len(runs) - finished - failed,
                "failed": failed,
                "retried": int((again > 0).sum()),
                "retries": int(again.sum()),
                "step0_accuracy": {
                    name: float(getattr(start, name)()) for name in ("mean", "min", "max")
                },
            }
        )
    return rows


def tally_cells(row: dict[str, Any]) -> list[Cell]:
    """One row's cells, in the order of `TALLY_HEADINGS`."""
    start = row["step0_accuracy"]
    known = start["mean"] == start["mean"]
    return [
        Cell(row["arm"]),
        *(Cell(str(row[name])) for name in ("planned", "finished", "diverged", "failed")),
        Cell(str(row["retried"]), f"{row['retries']} more" if row["retries"] else ""),
        Cell(
            f"{start['mean']:.3f}" if known else NOTHING,
            f"{start['min']:.3f} to {start['max']:.3f}" if known else "",
        ),
    ]


def retry_note(rows: list[dict[str, Any]]) -> str | None:
    """A note on runs that needed more than one attempt; None where none did."""
    retried = sum(row["retried"] for row in rows)
    if not retried:
        return None
    arms = ", ".join(f"{row['arm']} {row['retried']}" for row in rows if row["retried"])
    word = "run was" if retried == 1 else "runs were"
    return f"{retried} {word} interrupted or lost and went on with the same seed ({arms})"
