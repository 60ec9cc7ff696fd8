"""The run directory: what a run leaves behind, and the guard against mixing two runs in one."""

import json
import os
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from raymdm.config import Config, dump_yaml
from raymdm.config.loading import fingerprint, validate
from raymdm.config.training import Keep
from raymdm.errors import CheckpointError

# What may change when a run is resumed without changing its result. The data that was
# trained on is known by its fingerprint, not by the settings that would prepare it.
MEASURED = "variance"
"""Folder of what `raymdm variance` found, which may be there before the run."""

_SECTIONS_NOT_IDENTITY = frozenset(
    [
        "run_dir",
        "keep",
        "imports",
        "task",
        "prepare",
        "checkpoints",
        "cluster",
        "evaluation",
        "variance",
        "sweep",
        "compare",
        "wandb",
    ]
)
_TRAINING_NOT_IDENTITY = frozenset(
    [
        "checkpoint_every",
        "validate_every",
        "validation_rows",
        "validation_draws",
        "micro_batch_size",
        "batching",
        "head_chunk",
        "activation_checkpointing",
        "compile",
        "threads_per_worker",
    ]
)
_POLICY_NOT_IDENTITY = frozenset(["rollouts", "reward_seconds", "reward_tasks", "samples"])
_DATA_IDENTITY = ("pad_supervision", "shuffle", "window_blocks", "fragment_bytes", "bad_rows")
_PACKAGES = ("raymdm", "ray", "deepspeed", "torch", "transformers", "peft", "numpy", "pyarrow")


class RunDirectory:
    """Paths inside a run directory, and its small JSON files."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.parquet"
        self.items = self.path / "items.parquet"
        self.scores = self.path / "scores.json"
        self.density = self.path / "density.json"
        self.model = self.path / "model"
        self.checkpoints = self.path / "checkpoints"
        self._stop = self.path / "stop"
        self._status = self.path / "status.json"

    @classmethod
    def open(cls, config: Config, data: str, resume: bool) -> "RunDirectory":
        """Create the directory of a new run, or return to that of the same run.

        Args:
            config: of the run.
            data: fingerprint of the prepared data.
            resume: the run may have been begun before.

        Raises:
            CheckpointError: it belongs to another configuration or other data, or to this one
                without `resume`.
        """
        run = cls(config.run_dir)
        if run.config.exists():
            run.check_same(config)
            run.check_data(config, data)
            state = run.status().get("state", "interrupted")
            if not resume:
                raise CheckpointError(
                    f"{run.path} already holds this run ({state}); continue it with --resume or "
                    "choose another run_dir"
                )
        elif run.path.exists() and {path.name for path in run.path.iterdir()} - {MEASURED}:
            raise CheckpointError(
                f"{run.path} is not empty and is no run directory; choose another run_dir"
            )
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            run.config.write_text(dump_yaml(config))
            if not (run.path / "environment.json").exists():
                write_json(run.path / "environment.json", environment())
            run.write_status(data=data)
        except OSError as error:
            raise CheckpointError(
                f"{run.path}: cannot write the run directory ({error.strerror})"
            ) from error
        return run

    @classmethod
    def existing(cls, path: str | Path) -> "RunDirectory":
        """A run directory that must be there already.

        Raises:
            CheckpointError: no `config.yaml` in it.
        """
        run = cls(path)
        if not run.config.is_file():
            raise CheckpointError(
                f"{run.path} is no run directory (it has no config.yaml); give the folder that "
                "`raymdm train` wrote"
            )
        return run

    def check_data(self, config: Config, data: str) -> None:
        """Raises CheckpointError where the prepared data is not what the run began with."""
        if self.status().get("data", data) != data:
            raise CheckpointError(
                f"{self.path}: the data in {config.data.folder} is not what this run began with; "
                "restore it or choose another run_dir"
            )

    def begin(self, steps: int) -> None:
        """Mark the run as running, and forget scores of weights that training will change."""
        self._stop.unlink(missing_ok=True)
        self.scores.unlink(missing_ok=True)
        self.items.unlink(missing_ok=True)
        live: dict[str, Any] = dict.fromkeys(
            ("loss", "reward", "tokens_per_second", "seconds_left")
        )
        self.write_status(state="running", message=None, step=0, steps=steps, **live)

    def ask_to_stop(self, reason: str) -> None:
        """Ask the run's workers to end after the step they are at, with a checkpoint."""
        self._stop.write_text(reason)

    def stop_wish(self) -> str | None:
        """Why the workers were asked to stop; None if they were not."""
        try:
            return self._stop.read_text()
        except FileNotFoundError:
            return None

    def prune(self, keep: Keep) -> None:
        """Remove what `keep: metrics` does not hold: the model and the checkpoints."""
        if keep == "metrics":
            shutil.rmtree(self.model, ignore_errors=True)
            shutil.rmtree(self.checkpoints, ignore_errors=True)

    def read_config(self) -> dict[str, Any]:
        """The run's complete configuration."""
        content = yaml.safe_load(self.config.read_text())
        return dict(content)

    def check_same(self, config: Config) -> None:
        """Raises CheckpointError, naming a key, where the directory is another run's."""
        here = identity(config.model_dump())
        # Keys that came since the run began have the default they had without being there.
        there = identity(validate(self.read_config(), str(self.config)).model_dump())
        if fingerprint(here) != fingerprint(there):
            key, was, now = first_difference(there, here)
            raise CheckpointError(
                f"{self.path} belongs to another configuration: {key} is {was!r} there and {now!r} "
                "here; choose another run_dir"
            )

    def status(self) -> dict[str, Any]:
        """`status.json`: state, step, steps, message, seconds; empty where there is none."""
        return read_json(self._status)

    def write_status(self, **values: Any) -> None:
        """Update `status.json` with these values."""
        write_json(self._status, {**self.status(), **values})


def identity(content: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that decides a run's result."""
    kept = {key: value for key, value in content.items() if key not in _SECTIONS_NOT_IDENTITY}
    kept["training"] = {
        key: value
        for key, value in content["training"].items()
        if key not in _TRAINING_NOT_IDENTITY
    }
    # Only where there are any, so that runs begun before there could be keep their fingerprint.
    for key in ("stream_seeds", "policy"):
        if not kept[key]:
            del kept[key]
    if content["policy"]:
        kept["policy"] = {
            k: v for k, v in content["policy"].items() if k not in _POLICY_NOT_IDENTITY
        }
        kept["policy"]["staleness"] = content["policy"]["rollouts"]["staleness"]
        if content["policy"]["incremental_training"]:  # it chooses the prompts
            kept["policy"]["listing"] = content["evaluation"]["decoding"]
    data = content["data"]
    kept["data"] = {key: data[key] for key in _DATA_IDENTITY}
    # Where the files lie may change; what is in them is in the run's index of its rows.
    kept["data"]["weights"] = [source["weight"] for source in data["sources"]]
    return kept


def environment() -> dict[str, Any]:
    """Versions, platform and command line, for `environment.json`."""
    return {
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "command": sys.argv,
    }


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file in one step: a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where the file is not there yet."""
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}


def first_difference(was: Any, now: Any, path: str = "") -> tuple[str, Any, Any]:
    """The first key in which two nested mappings differ, dotted, with its two values."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*was, *(k for k in now if k not in was)]:
            if was.get(key) != now.get(key):
                return first_difference(was.get(key), now.get(key), f"{path}.{key}".lstrip("."))
    return path, was, now
