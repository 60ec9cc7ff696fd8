"""The files of one run directory as one row: `status.json`, `scores.json`, `config.yaml`."""

import json
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from raymdm.errors import DataError
from raymdm.verdict.outcomes import LOST

OUTCOMES = ("finished", "diverged", "failed")
"""States that end a run: a sweep's word on them stands."""

PASSES = ("forwards", "backwards", "probe_forwards")
"""What a run counted: passes of one row of one view; the probe's are among the forwards."""

NOISE_COLUMNS = (
    "variance_between_views",
    "variance_between_rates",
    "variance_between_rows",
    "effective_sample_size",
    "weight_max",
    "gradient_norm",
)
"""What a run measured of its noise at every step."""

CURVE_COLUMNS = ("step", "loss", "validation_nelbo", *NOISE_COLUMNS)
"""What is read of a run's `metrics.parquet`."""


def existing_folder(path: str | Path) -> Path:
    """`path` as a directory. Raises DataError."""
    folder = Path(path)
    if not folder.exists():
        raise DataError(f"{folder}: no such directory")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file; give a sweep directory or run directories")
    return folder


def read_row(
    arm: str,
    seed: Any,
    run_dir: Path | None,
    state: str | None = None,
    message: str | None = None,
) -> dict[str, Any]:
    """One run as a row. The sweep's word on the state stands if it is an outcome."""
    found = run_dir is not None and run_dir.is_dir()
    status = _read_quietly(run_dir / "status.json") if run_dir and found else {}
    if state not in OUTCOMES:
        state = status.get("state") or ("failed" if found else "missing")
    row: dict[str, Any] = {"arm": arm, "seed": seed, "setting": "", "state": state}
    scores = _read_quietly(run_dir / "scores.json") if run_dir and found else {}
    final, step0 = scores.get("final") or {}, scores.get("step0") or {}
    measured = {"accuracy": final.get("accuracy"), "nelbo": final.get("nelbo_per_token")}
    message = message or status.get("message")
    if state == "finished" and not final:
        row["state"] = "failed" if found else "missing"
        message = message or ("no scores.json" if found else "the run directory is gone")
    elif state not in {*OUTCOMES, *LOST}:
        row["state"], message = "failed", message or f"unknown state {state!r}"
    row |= {name: nan if value is None else float(value) for name, value in measured.items()}
    row["unscored"] = tuple(name for name, value in measured.items() if value is None)
    # Two scores can be compared only if all of this is the same.
    measured_with = {key: final.get(key) for key in ("split", "items", "decoding", "nelbo")}
    row["measured_with"] = json.dumps(measured_with, sort_keys=True) if final else ""
    row["step0_accuracy"] = _number(step0.get("accuracy"))
    row["seconds"] = _number(status.get("seconds"))
    row |= {name: _number(status.get(name)) for name in PASSES}
    row |= {"attempts": 1 if found else 0, "message": message or ""}
    row["run_dir"] = str(run_dir) if found else ""
    return row


def read_item_table(folder: Path) -> pd.DataFrame | None:
    """A run's `items.parquet`: item, correct, nll, tokens; None where there is none to read."""
    try:
        return pd.read_parquet(
            folder / "items.parquet", columns=["item", "correct", "nll", "tokens"]
        )
    except (OSError, ValueError, KeyError):
        return None


def read_curves(folder: Path) -> pd.DataFrame | None:
    """`CURVE_COLUMNS` of a run's `metrics.parquet`, NaN where it has no such column; None where
    there is none to read: a run killed while it wrote loses its curve, not the report.
    """
    try:
        frame = pd.read_parquet(folder / "metrics.parquet")
    except (OSError, ValueError):
        return None
    return frame.reindex(columns=list(CURVE_COLUMNS))


def read_run_config(folder: Path) -> dict[str, Any]:
    """A run's `config.yaml`; empty where there is none to read."""
    try:
        content = yaml.safe_load((folder / "config.yaml").read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _number(value: Any) -> float:
    return nan if value is None else float(value)


def seed_of(folder: Path) -> int:
    """Seed in a run's `config.yaml`. Raises DataError."""
    try:
        return int(yaml.safe_load((folder / "config.yaml").read_text())["seed"])
    except (OSError, yaml.YAMLError, TypeError, KeyError, ValueError) as error:
        raise DataError(f"{folder}: neither status.json nor config.yaml has its seed") from error


def read_mapping(file: Path) -> dict[str, Any]:
    """A JSON object. Raises DataError."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{file}: expected keys and values, found a {type(content).__name__}")
    return content


def _read_quietly(file: Path) -> dict[str, Any]:
    """A JSON object, or nothing where one run's file is missing or broken."""
    try:
        return read_mapping(file)
    except DataError:
        return {}
