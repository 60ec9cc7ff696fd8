"""Checkpoints of a run as its workers see them: written by all ranks, delivered, kept by policy.

A checkpoint holds DeepSpeed's state in `engine/`, our own in `progress.json` (step, workers,
configuration, data, state of the estimator), and what a run directory needs to go on elsewhere:
`metrics.parquet` and `density.json`. Where it lies and whether it is whole: `checkpoint_store.py`.
"""

import json
import math
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch.distributed
from torch import nn

from raymdm.config import Config
from raymdm.config.loading import fingerprint
from raymdm.errors import CheckpointError, RunError
from raymdm.training.agreement import first_says, node_folder
from raymdm.training.checkpoint_store import (
    CheckpointStore,
    checkpoint_name,
    checkpoint_step,
    flush,
    sizes_of,
)
from raymdm.training.resharding import any_size
from raymdm.training.run_directory import RunDirectory, identity, write_json

TAG = "engine"
_PROGRESS = "progress.json"
_TORCH_WRITES = re.compile("inline_container|PytorchStreamWriter|iostream")
"""How torch says that a file could not be written."""
_PAUSES = (1.0, 10.0)
"""Seconds before an upload that failed is tried again."""

Progress = dict[str, Any]
"""What is saved beside DeepSpeed's state: step, workers, best, score, start, stream,
configuration, data."""


def open_store(config: Config, run: RunDirectory) -> CheckpointStore:
    """Where the checkpoints of a run are kept."""
    return CheckpointStore(config.checkpoints.storage or str(run.checkpoints))


def steps_done(store: CheckpointStore) -> int:
    """Steps of the newest whole checkpoint; 0 without one."""
    name = store.newest()
    return checkpoint_step(name) if name else 0


def check_store(store: CheckpointStore, config: Config, data: str, resume: bool) -> None:
    """Raises CheckpointError where the store holds another run, or this one without `resume`."""
    name = store.newest()
    if name is None:
        return
    progress = json.loads(store.read(name, _PROGRESS))
    same = progress["configuration"] == fingerprint(identity(config.model_dump()))
    if not same or progress["data"] != data:
        what = "configuration" if not same else "data"
        raise CheckpointError(
            f"{store.place} holds checkpoints of a run with other {what}; choose another "
            "checkpoints.storage or run_dir"
        )
    if not resume:
        raise CheckpointError(
            f"{store.place} holds checkpoints of this run (step {progress['step']}); continue it "
            "with --resume or choose another checkpoints.storage"
        )


def clear_up(config: Config, run: RunDirectory) -> None:
    """Remove what `keep: metrics` does not hold, wherever it is."""
    run.prune(config.keep)
    if config.keep == "metrics" and config.checkpoints.storage is not None:
        store = open_store(config, run)
        for name in store.names():
            store.drop(name)


def save_engine(engine: Any, folder: Path, progress: Progress, run: RunDirectory) -> None:
    """Write this rank's part of a checkpoint; every rank must call it."""
    from deepspeed.checkpoint.constants import (
        UNIVERSAL_CHECKPOINT_INFO,
        UNIVERSAL_CHECKPOINT_VERSION_KEY,
        UNIVERSAL_CHECKPOINT_VERSION_VALUE,
    )

    # What DeepSpeed asks for when the checkpoint is to be loaded by another number of workers.
    version = {UNIVERSAL_CHECKPOINT_VERSION_KEY: UNIVERSAL_CHECKPOINT_VERSION_VALUE}
    engine.save_checkpoint(
        str(folder),
        tag=TAG,
        client_state={UNIVERSAL_CHECKPOINT_INFO: version},
        save_latest=False,
        exclude_frozen_parameters=has_frozen(engine.module),
    )
    if torch.distributed.get_rank() == 0:
        write_json(folder / _PROGRESS, progress)
        for path in (run.metrics, run.density):
            if path.exists():
                shutil.copy(path, folder)


def bring_back(folder: Path, run: RunDirectory) -> None:
    """Put what a lost run directory held back into a new one."""
    for path in (run.metrics, run.density):
        if (folder / path.name).exists() and not path.exists():
            shutil.copy(folder / path.name, path)


def read_progress(folder: Path) -> Progress:
    """Our own state in a checkpoint."""
    return dict(json.loads((folder / _PROGRESS).read_text()))


def load_engine(engine: Any, folder: Path, progress: Progress) -> None:
    """Load DeepSpeed's state into the engine, whatever number of workers saved it.

    Raises:
        CheckpointError: DeepSpeed does not find its state.
    """
    strict = not has_frozen(engine.module)
    with any_size(engine, folder, TAG, saved_by=progress["workers"]) as loadable:
        loaded, _ = engine.load_checkpoint(str(loadable), tag=TAG, load_module_strict=strict)
    if loaded is None:
        raise CheckpointError(f"{folder}: DeepSpeed found no state in it")


def has_frozen(model: nn.Module) -> bool:
    """Whether some weights are not trained (LoRA): they are in no checkpoint, being the start's."""
    return any(not parameter.requires_grad for parameter in model.parameters())


@dataclass(frozen=True)
class Keeping:
    """Which checkpoints stay while a run goes on.

    Attributes:
        last: how many of the newest.
        milestone_every: those after a multiple of so many steps stay for good; 0 for none.
        best: the one with the lowest held-out NELBO stays.
        all: everything stays.
    """

    last: int
    milestone_every: int
    best: bool
    all: bool

    @classmethod
    def of(cls, config: Config) -> "Keeping":
        """As the configuration says."""
        section, keep = config.checkpoints, config.keep
        return cls(section.last, section.milestone_every, keep == "best", keep == "all")

    def dropped(self, scores: dict[str, float | None]) -> list[str]:
        """Names that do not stay, of whole checkpoints in the order of their steps with scores."""
        names = list(scores)
        kept = set(names if self.all else names[-self.last :])
        if self.milestone_every:
            kept |= {name for name in names if checkpoint_step(name) % self.milestone_every == 0}
        best = best_of(scores) if self.best else None
        if best is not None:
            kept.add(best)
        return [name for name in names if name not in kept]


def best_of(scores: dict[str, float | None]) -> str | None:
    """The name with the lowest held-out NELBO; None where none was measured."""
    scored = {name: score for name, score in scores.items() if score is not None}
    return min(scored, key=lambda name: scored[name]) if scored else None


class Delivery(Protocol):
    """How a written checkpoint gets to its store."""

    def __call__(
        self, name: str, metrics: dict[str, float], written: Path, deliver: Callable[[], None]
    ) -> None:
        """Call `deliver`, now or in the background; every rank must call this."""

    def wait(self) -> None:
        """Return when nothing is on its way any more."""


class DirectDelivery:
    """At once, in this process."""

    def __call__(
        self, name: str, metrics: dict[str, float], written: Path, deliver: Callable[[], None]
    ) -> None:
        """Call `deliver` now."""
        deliver()

    def wait(self) -> None:
        """Nothing is ever on its way."""


class Checkpoints:
    """What a worker does with checkpoints; all ranks must call each method together."""

    def __init__(self, store: CheckpointStore, keeping: Keeping, delivery: Delivery) -> None:
        self.store, self.keeping, self.delivery = store, keeping, delivery
        self.rank = torch.distributed.get_rank()
        self.workers = torch.distributed.get_world_size()

    @contextmanager
    def newest(self) -> Iterator[Path | None]:
        """A local folder with the newest whole checkpoint; None without one."""
        # One rank looks: another might not see the same a moment later.
        with self._opened(first_says(self.store.newest)) as folder:
            yield folder

    @contextmanager
    def best(self) -> Iterator[Path | None]:
        """A local folder with the one of the lowest held-out NELBO; None where none has any."""
        with self._opened(first_says(lambda: best_of(self._scores(self.store.whole())))) as folder:
            yield folder

    def save(self, step: int, metrics: dict[str, float], write: Callable[[Path], None]) -> None:
        """Keep what `write(folder)` writes on every rank, then drop what need not stay.

        Raises:
            RunError: it could not be written; earlier checkpoints are as they were.
        """
        name = checkpoint_name(step)
        self.delivery.wait()
        first_says(lambda: self.store.clear(name))
        own: Path | None = None
        try:
            own = self._scratch(name)
            write(own)
            deliver = self._move if self.store.local else self._upload
            self.delivery(name, metrics, own, partial(deliver, own, name))
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not _TORCH_WRITES.search(str(error)):
                raise  # a lost peer, for example
            if own is not None:
                shutil.rmtree(own, ignore_errors=True)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RunError(
                f"{self.store.place}: the checkpoint of step {step} could not be written "
                f"({reason}); make room, then continue with --resume"
            ) from error
        self._prune()

    def finish(self) -> None:
        """Wait for what is on its way, on all ranks."""
        self.delivery.wait()
        torch.distributed.barrier()
        self._prune()

    @classmethod
    def direct(cls, config: Config, run: RunDirectory) -> "Checkpoints":
        """Those of a run outside Ray Train, in its process group of one."""
        return cls(open_store(config, run), Keeping.of(config), DirectDelivery())

    @contextmanager
    def _opened(self, name: str | None) -> Iterator[Path | None]:
        if name is None:
            yield None
        elif self.store.local:
            yield Path(self.store.folder(name))
        else:
            with node_folder("checkpoint", lambda made: self.store.download(name, made)) as folder:
                yield folder

    def _scratch(self, name: str) -> Path:
        """Where this rank writes: beside the others' parts, or elsewhere if that is no disk."""
        if not self.store.local:
            return Path(tempfile.mkdtemp(prefix="raymdm-checkpoint-"))
        own = Path(self.store.folder(name)) / f".rank-{self.rank}"
        own.mkdir(parents=True)
        return own

    def _move(self, own: Path, name: str) -> None:
        files, folder = sizes_of(own), own.parent
        for file in files:
            flush(own / file)
            (folder / file).parent.mkdir(exist_ok=True)
            (own / file).replace(folder / file)
        shutil.rmtree(own)
        self.store.seal(name, self.rank, self.workers, files)

    def _upload(self, own: Path, name: str) -> None:
        try:
            for pause in (*_PAUSES, None):
                try:
                    self.store.upload(own, name, self.rank, self.workers)
                    return
                except OSError:
                    if pause is None:
                        raise
                    time.sleep(pause)
        finally:
            shutil.rmtree(own, ignore_errors=True)

    def _prune(self) -> None:
        if self.rank or self.keeping.all:
            return
        whole = self.store.whole()
        scores = self._scores(whole) if self.keeping.best else dict.fromkeys(whole)
        # What lies before a whole one was cut short; what lies after may be on its way.
        cut = [
            name
            for name in self.store.names()
            if name not in whole and name < max(whole, default="")
        ]
        for name in [*self.keeping.dropped(scores), *cut]:
            self.store.drop(name)

    def _scores(self, names: list[str]) -> dict[str, float | None]:
        """The held-out NELBO that was measured at each of these checkpoints, if any was."""
        measured = {name: json.loads(self.store.read(name, _PROGRESS))["score"] for name in names}
        return {name: None if math.isnan(score) else score for name, score in measured.items()}
