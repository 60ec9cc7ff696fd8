"""`sweep.json`: the question of a sweep, fixed before its runs, its design, the state of each."""

from pathlib import Path
from typing import Any

from raymdm.config import Config
from raymdm.errors import CheckpointError
from raymdm.sweeps.adaptive import sequential_design
from raymdm.sweeps.design import Trial
from raymdm.sweeps.trial import ENDS, trial_record
from raymdm.training.run_directory import read_json, write_json

NAME = "sweep.json"


def write_manifest(config: Config, trials: list[Trial], sweep_dir: Path, path: str) -> None:
    """Write `sweep.json`.

    Args:
        config: the sweep's.
        trials: all that are planned so far.
        sweep_dir: its folder, made where it is missing.
        path: how the trials run, `process` or `trainer`.
    """
    sweep_dir.mkdir(parents=True, exist_ok=True)
    before = read_json(sweep_dir / NAME)
    names = [trial["trial"] for trial in before.get("trials", [])]
    known = any(trial["state"] in ENDS for trial in before.get("trials", []))
    grown = known and any(trial.name not in names for trial in trials)
    write_json(
        sweep_dir / NAME,
        {
            **declared_question(config),
            "arms": list(config.sweep.arms),
            "seeds": list(dict.fromkeys(trial.seed for trial in trials)),
            "vary": config.sweep.vary,
            "path": path,
            "extended_after_results": before.get("extended_after_results", False) or grown,
            "trials": [trial_record(trial, sweep_dir) for trial in trials],
        },
    )


def declared_question(config: Config) -> dict[str, Any]:
    """What the verdict will be about, fixed before the first run."""
    until = sequential_design(config)
    return {
        "question": config.compare.question,
        "baseline": config.sweep.baseline or next(iter(config.sweep.arms)),
        "metric": config.compare.metric,
        "margin": config.compare.margin,
        "until": None if until is None else until.to_dict(),
    }


def check_question(config: Config, sweep_dir: Path) -> None:
    """Raises CheckpointError where a sweep in that folder asked another question."""
    before = read_json(sweep_dir / NAME)
    for key, value in declared_question(config).items():
        # Sweeps of before this key was written asked for its default.
        if before and before.get(key, value) != value:
            looked = "" if key in ("until", "question") else f", use `raymdm compare --{key}`"
            raise CheckpointError(
                f"{sweep_dir}: the sweep declared {key} {before.get(key)!r} before its runs, here "
                f"it is {value!r}; to look at it another way{looked or ' start another sweep'}"
            )
