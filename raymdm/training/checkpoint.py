"""Checkpoints of a run: DeepSpeed's state and our progress, in folders named by the step.

`Reporter` hides who keeps them: Ray Train (`TrainReporter`) or the run directory itself
(`FolderReporter`), in the same layout: `checkpoints/step-00000100/`.
"""

import json
import math
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch.distributed
from torch import nn

from raymdm.config.training import Keep
from raymdm.errors import CheckpointError
from raymdm.training.run_directory import RunDirectory, read_json, write_json

_TAG = "engine"
_PROGRESS = "progress.json"
_RAY_SNAPSHOT = "checkpoint_manager_snapshot.json"

Progress = dict[str, Any]
"""What is saved beside DeepSpeed's state: step, workers, best, start, stream."""


def checkpoint_name(step: int) -> str:
    """Folder name of the checkpoint after `step` steps."""
    return f"step-{step:08d}"


def save_engine(engine: Any, folder: Path, progress: Progress) -> None:
    """Write this rank's part of a checkpoint; every rank must call it."""
    engine.save_checkpoint(
        str(folder),
        tag=_TAG,
        client_state={},
        save_latest=False,
        exclude_frozen_parameters=has_frozen(engine.module),
    )
    if torch.distributed.get_rank() == 0:
        write_json(folder / _PROGRESS, progress)


def load_engine(engine: Any, folder: Path, world_size: int) -> Progress:
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
    if "stream" not in progress:
        raise CheckpointError(
            f"{folder} was written by an older raymdm, without the state of the estimator; train "
            "anew in another run_dir"
        )
    loaded, _ = engine.load_checkpoint(
        str(folder), tag=_TAG, load_module_strict=not has_frozen(engine.module)
    )
    if loaded is None:
        raise CheckpointError(f"{folder}: DeepSpeed found no state in it")
    return dict(progress)


def has_frozen(model: nn.Module) -> bool:
    """Whether some weights are not trained (LoRA): they are in no checkpoint, being the start's."""
    return any(not parameter.requires_grad for parameter in model.parameters())


class Reporter(Protocol):
    """Where a worker's checkpoints go."""

    def restore(self, load: Callable[[Path], Progress]) -> Progress | None:
        """`load(folder)` of the newest complete checkpoint; None without one."""

    def save(self, step: int, metrics: dict[str, float], write: Callable[[Path], None]) -> None:
        """Keep the checkpoint that `write(folder)` writes; every rank must call it."""


class FolderReporter:
    """Checkpoints of a single worker, straight into the run directory."""

    def __init__(self, run: RunDirectory, keep: Keep) -> None:
        self.run = run
        self.keep = keep

    def restore(self, load: Callable[[Path], Progress]) -> Progress | None:
        """`load(folder)` of the newest complete checkpoint; None without one."""
        complete = [folder for folder in _folders(self.run) if (folder / _PROGRESS).exists()]
        return load(complete[-1]) if complete else None

    def save(self, step: int, metrics: dict[str, float], write: Callable[[Path], None]) -> None:
        """Write under a temporary name, rename, then drop what `keep` does not hold."""
        # Ray Train's record would go on naming folders that are dropped here.
        (self.run.checkpoints / _RAY_SNAPSHOT).unlink(missing_ok=True)
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
            score = metrics.get("validation_nelbo", math.inf)
            if not best or score < best["score"]:
                best = {"folder": final.name, "score": score}
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

    def restore(self, load: Callable[[Path], Progress]) -> Progress | None:
        """`load(folder)` of the newest checkpoint that Ray Train holds; None without one."""
        checkpoint = self.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            return load(Path(folder))

    def save(self, step: int, metrics: dict[str, float], write: Callable[[Path], None]) -> None:
        """Write to a temporary folder and hand it to Ray Train, which merges the ranks' files."""
        with tempfile.TemporaryDirectory(prefix="raymdm-checkpoint-") as folder:
            write(Path(folder))
            self.train.report(
                {"step": step, **metrics},
                checkpoint=self.train.Checkpoint.from_directory(folder),
                checkpoint_dir_name=checkpoint_name(step),
            )


def trainer_steps_done(run: RunDirectory) -> int:
    """Steps of the checkpoint that Ray Train will restore, by its own record; 0 without one."""
    snapshot = read_json(run.checkpoints / _RAY_SNAPSHOT)
    result = snapshot.get("latest_checkpoint_result") or {}
    name = result.get("checkpoint_dir_name")
    return int(name.removeprefix("step-")) if name else 0


def _folders(run: RunDirectory) -> list[Path]:
    return sorted(folder for folder in run.checkpoints.glob("step-*") if folder.is_dir())
