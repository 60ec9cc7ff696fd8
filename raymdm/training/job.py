"""What every worker of a run is handed, and how a run ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from raymdm.config import Config
from raymdm.data.collate import collate_rows
from raymdm.data.jsonl import RowIndex, index_rows
from raymdm.data.manifest import Manifest, check_marks, read_manifest
from raymdm.data.order import Order
from raymdm.diffusion import Rows
from raymdm.errors import CheckpointError, DataError
from raymdm.models import Backbone, ModelShape, build_model, load_model, load_shape
from raymdm.models.initial import shape_from_config
from raymdm.training.engine import deepspeed_config
from raymdm.training.run_directory import RunDirectory
from raymdm.training.schedule import total_steps

State = Literal["finished", "diverged"]


@dataclass(frozen=True)
class Job:
    """A checked run, the same on every worker."""

    config: Config
    run: RunDirectory
    data_folder: Path
    manifest: Manifest
    shape: ModelShape
    order: Order
    steps: int
    train: RowIndex
    validation: RowIndex | None


@dataclass(frozen=True)
class Outcome:
    """How a run ended. A diverged run is an outcome, not an error."""

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
    train = index_rows(folder / "train.jsonl", manifest.vocabulary_size)
    if len(train) != manifest.splits["train"].rows:
        raise DataError(
            f"{train.path} has {len(train)} rows, its manifest says "
            f"{manifest.splits['train'].rows}; prepare the folder again"
        )
    check_marks(
        folder,
        manifest,
        delimiters=config.estimator.delimiters.rates != "same",
        syntax=config.estimator.eligible == "response_and_syntax",
    )
    deepspeed_config(config, micro_batch=1, accumulation=1)
    if config.data.pad_supervision == "eos" and int(train.lengths.max()) > manifest.max_length:
        raise DataError(
            f"{train.path}: a row has {int(train.lengths.max())} tokens, more than the manifest's "
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
    order = Order(config.seed, len(train), config.training.batch_size)
    steps = total_steps(config.training, order.steps_per_epoch)
    return Job(config, run, folder, manifest, shape, order, steps, train, validation)


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


def model_shape(config: Config, manifest: Manifest) -> ModelShape:
    """Shape of the run's model, checked against the data's tokenizer.

    Raises:
        CheckpointError: a starting model whose vocabulary or mask token are not the tokenizer's, or
            of the other kind (causal or masked) than the objective trains.
    """
    ids = {
        "mask_token_id": manifest.mask_token_id,
        "eos_token_id": manifest.eos_token_id,
        "pad_token_id": manifest.pad_token_id,
    }
    causal = config.estimator.objective == "autoregressive"
    if config.model.init_from is None:
        return shape_from_config(
            config.model, vocabulary_size=manifest.vocabulary_size, causal=causal, **ids
        )
    shape = load_shape(config.model.init_from)
    if shape.causal != causal:
        kind, objective = ("causal", "autoregressive") if shape.causal else ("masked", "masked")
        raise CheckpointError(
            f"model.init_from {config.model.init_from}: a {kind} model cannot be trained with "
            f"estimator.objective {config.estimator.objective}; set estimator.objective to "
            f"{objective}, or start from another model"
        )
    for name in ("mask_token_id", "eos_token_id"):
        if getattr(shape, name) != ids[name]:
            raise CheckpointError(
                f"model.init_from {config.model.init_from}: its {name} is {getattr(shape, name)}, "
                f"the prepared data has {ids[name]}; prepare the data with the model's tokenizer"
            )
    if shape.vocabulary_size < manifest.vocabulary_size:
        raise CheckpointError(
            f"model.init_from {config.model.init_from}: {shape.vocabulary_size} embedding rows, "
            f"but the tokenizer has {manifest.vocabulary_size} tokens"
        )
    return shape


def initial_model(config: Config, shape: ModelShape) -> Backbone:
    """The weights a run starts from: the folder's, or new ones from the seed."""
    if config.model.init_from is not None:
        return load_model(config.model.init_from)
    return build_model(shape, config.seed, config.model.initializer_std)
