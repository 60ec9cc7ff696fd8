"""Checkpoints of a run: DeepSpeed's state and our progress, in folders named by the step.

`Reporter` hides who keeps them: Ray Train (`TrainReporter`) or the run directory itself
(`FolderReporter`), in the same layout: `checkpoints/step-00000100/`.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch.distributed

from raymdm.config.training import Keep
from raymdm.errors import CheckpointError
from raymdm.training.run_directory import RunDirectory, read_json, write_json

_TAG = "engine"
_PROGRESS = "progress.json"
_RAY_SNAPSHOT = "checkpoint_manager_snapshot.json"


def checkpoint_name(step: int) -> str:
    """Folder name of the checkpoint after `step` steps."""
    return f"step-{step:08d}"


def save_engine(engine: Any, folder: Path, progress: dict[str, Any]) -> None:
    """Write this rank's part of a checkpoint; every rank must call it."""
    engine.save_checkpoint(str(folder), tag=_TAG, client_state={}, save_latest=False)
    if torch.distributed.get_rank() == 0:
        write_json(folder / _PROGRESS, progress)


def load_engine(engine: Any, folder: Path, world_size: int) -> dict[str, Any]:
    """Load a checkpoint into the engine; the progress that was saved with it.

    Raises:
        CheckpointError: cut short, or written by another number of workers.
    """
    try:
        progress = json.loads((folder / _PROGRESS).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{folder}: not a complete checkpoint ({_PROGRESS} is missing or broken)"
        ) from error
    if progress["workers"] != world_size:
        raise CheckpointError(
            f"{folder} was written by {progress['workers']} workers and cannot be resumed with "
            f"{world_size}; set cluster.workers to {progress['workers']}"
        )
    loaded, _ = engine.load_checkpoint(str(folder), tag=_TAG)
    if loaded is None:
        raise CheckpointError(f"{folder}: DeepSpeed found no state in it")
    return dict(progress)


class Reporter(Protocol):
    """Where a worker's checkpoints go."""

    def latest(self) -> Path | None:
        """Folder of the newest complete checkpoint."""

    def save(self, step: int, metrics: dict[str, float], write: Callable[[Path], None]) -> None:
        """Keep the checkpoint that `write(folder)` writes; every rank must call it."""


class FolderReporter:
    """Checkpoints of a single worker, straight into the run directory."""

    def __init__(self, run: RunDirectory, keep: Keep) -> None:
        self.run = run
        self.keep = keep

    def latest(self) -> Path | None:
        """Folder of the newest complete checkpoint."""
        return latest_checkpoint(self.run)

    def save(self, step: int, metrics: dict[str, float], write: Callable[[Path], None]) -> None:
        """Write under a temporary name, rename, then drop what `keep` does not hold."""
        final = self.run.checkpoints / checkpoint_name(step)
        temporary = self.run.checkpoints / f".{final.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        older = [folder for folder in _folders(self.run) if folder != final]
        if self.keep == "best":
            # The newest stays for resuming, the best for use.
            record = self.run.checkpoints / "best.json"
            best = read_json(record)
            if not best or metrics["validation_nelbo"] < best["validation_nelbo"]:
                best = {"folder": final.name, **metrics}
                write_json(record, best)
            older = [folder for folder in older if folder.name != best["folder"]]
        if self.keep != "all":
            for folder in older:
                shutil.rmtree(folder)


class TrainReporter:
    """Checkpoints through `ray.train.report`, which every rank must reach together."""

    def __init__(self) -> None:
        from ray import train

        self.train = train

    def latest(self) -> Path | None:
        """Copy of the newest checkpoint that Ray Train holds."""
        checkpoint = self.train.get_checkpoint()
        return None if checkpoint is None else Path(checkpoint.to_directory())

    def save(self, step: int, metrics: dict[str, float], write: Callable[[Path], None]) -> None:
        """Write to a temporary folder and hand it to Ray Train, which merges the ranks' files."""
        with tempfile.TemporaryDirectory(prefix="raymdm-checkpoint-") as folder:
            write(Path(folder))
            self.train.report(
                {"step": step, **metrics},
                checkpoint=self.train.Checkpoint.from_directory(folder),
                checkpoint_dir_name=checkpoint_name(step),
            )


def latest_checkpoint(run: RunDirectory) -> Path | None:
    """The newest complete checkpoint: by Ray Train's record where there is one, else by name."""
    snapshot = read_json(run.checkpoints / _RAY_SNAPSHOT)
    if snapshot:
        result = snapshot.get("latest_checkpoint_result") or {}
        name = result.get("checkpoint_dir_name")
        return run.checkpoints / name if name else None
    complete = [folder for folder in _folders(run) if (folder / _PROGRESS).exists()]
    return complete[-1] if complete else None


def steps_done(run: RunDirectory) -> int:
    """Steps of the newest complete checkpoint; 0 without one."""
    folder = latest_checkpoint(run)
    return 0 if folder is None else int(folder.name.removeprefix("step-"))


def _folders(run: RunDirectory) -> list[Path]:
    return sorted(folder for folder in run.checkpoints.glob("step-*") if folder.is_dir())
