"""What every worker of a run is handed, and how a run ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from raymdm.config import Config
from raymdm.config.loading import fingerprint
from raymdm.data.collate import collate_rows
from raymdm.data.indexing import open_rows
from raymdm.data.jsonl import RowIndex, index_rows
from raymdm.data.manifest import Manifest, check_marks, read_manifest
from raymdm.data.mixture import make_order
from raymdm.data.order import Steps
from raymdm.data.rows import TrainingRows
from raymdm.diffusion import Rows
from raymdm.errors import DataError
from raymdm.models import ModelShape
from raymdm.training.engine import deepspeed_config
from raymdm.training.run_directory import RunDirectory
from raymdm.training.schedule import total_steps
from raymdm.training.seeds import seed_of
from raymdm.training.starting import check_start, model_shape

State = Literal["finished", "diverged", "stopped"]


@dataclass(frozen=True)
class Job:
    """A checked run, the same on every worker."""

    config: Config
    run: RunDirectory
    data_folder: Path
    manifest: Manifest
    shape: ModelShape
    start: str | None
    """Fingerprint of the starting checkpoint, where it counts to the end (adapters, policies)."""
    order: Steps
    steps: int
    train: TrainingRows
    validation: RowIndex | None
    pause_at: int | None = None
    """Steps after which the run stops with a checkpoint and its held-out NELBO, to go on later."""

    @property
    def until(self) -> int:
        """Steps to do now: all of them, or up to the pause."""
        return self.steps if self.pause_at is None else min(self.steps, self.pause_at)

    @property
    def data_fingerprint(self) -> str:
        """Of the prepared data, and of the training rows where they come from elsewhere."""
        if not self.config.data.sources:
            return self.manifest.fingerprint
        content = [fragment.content for fragment in self.train.fragments]
        return fingerprint({"manifest": self.manifest.fingerprint, "rows": content})


@dataclass(frozen=True)
class Outcome:
    """How a run ended. A diverged run is an outcome, not an error; a stopped one can go on."""

    state: State
    step: int
    message: str | None = None


def make_job(config: Config, run: RunDirectory) -> Job:
    """Check the data against the model and derive what the workers need.

    Raises:
        DataError, CheckpointError: what does not fit, and where.
    """
    folder = Path(config.data.folder).absolute()
    manifest = read_manifest(folder)
    shape = model_shape(config, manifest)
    start = check_start(config, shape)
    train = open_rows(config.data, folder, manifest, run.path)
    if not config.data.sources and train.rows_and_bad != manifest.splits["train"].rows:
        raise DataError(
            f"{train.path} has {train.rows_and_bad} rows, its manifest says "
            f"{manifest.splits['train'].rows}; prepare the folder again"
        )
    check_marks(
        folder,
        manifest,
        delimiters=config.estimator.delimiters.rates != "same",
        syntax=config.estimator.eligible == "response_and_syntax",
        found=train.marks if config.data.sources else None,
    )
    deepspeed_config(config, micro_batch=1, accumulation=1)
    if config.data.pad_supervision == "eos" and train.longest > manifest.max_length:
        raise DataError(
            f"{train.path}: a row has {train.longest} tokens, more than the manifest's "
            f"max_length {manifest.max_length}"
        )
    validation = None
    held_out = manifest.splits.get("validation")
    if held_out is not None and held_out.rows:
        validation = index_rows(folder / held_out.file, manifest.vocabulary_size)
    if config.keep == "best" and validation is None:
        raise DataError(
            f"keep: best chooses by the held-out NELBO, but {folder} has no validation rows; set "
            "keep: last, or prepare with a validation_fraction"
        )
    order = make_order(config.data, train, seed_of(config, "order"), config.training.batch_size)
    steps = total_steps(config.training, order.steps_per_epoch)
    return Job(config, run, folder, manifest, shape, start, order, steps, train, validation)


def read_rows(job: Job, numbers: np.ndarray, samples: Sequence[int] | np.ndarray) -> Rows:
    """Training rows by number, collated as training does, under these sample numbers."""
    return collate_rows(
        job.train.read(numbers.tolist()),
        samples,
        pad_token_id=job.shape.pad_token_id,
        eos_token_id=job.shape.eos_token_id,
        pad_supervision=job.config.data.pad_supervision,
        max_length=job.manifest.max_length,
    )
