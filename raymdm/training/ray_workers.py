"""What is Ray Train's in a run: the group's start, its rows, its reports, its notices."""

import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from ray import train
from ray.train.torch import TorchConfig

from raymdm.data.stream import stream_dataset
from raymdm.errors import CheckpointError, RunError
from raymdm.training.checkpoint import open_store, steps_done
from raymdm.training.checkpoint_store import CheckpointStore, checkpoint_step
from raymdm.training.job import Job
from raymdm.training.stopping import listen_for_sigterm

_TORCH_BACKEND: Any = TorchConfig().backend_cls


class _Backend(_TORCH_BACKEND):  # type: ignore[misc]
    """Torch's process group; before training, every worker's main thread minds SIGTERM."""

    def on_training_start(self, worker_group: Any, backend_config: Any) -> None:
        """Called by Ray Train; training itself runs in another thread, which cannot."""
        super().on_training_start(worker_group, backend_config)
        worker_group.execute(listen_for_sigterm)


class WorkersConfig(TorchConfig):
    """Ray Train's torch workers that stop after a step when they get a SIGTERM."""

    @property
    def backend_cls(self) -> Any:
        """Called by Ray Train."""
        return _Backend


class StepsForWorkers(train.DataConfig):
    """The rows of the steps to do, cut for as many workers as the group has got.

    Ray Train makes it anew at each start of the group: that is where a resume begins, and where an
    elastic group's size is known.
    """

    def __init__(self, job: Job) -> None:
        options = train.DataConfig.default_ingest_options()
        options.preserve_order = True
        # Locality would let a worker take a block out of turn.
        super().__init__(execution_options=options, enable_shard_locality=False)
        self.job = job

    def configure(
        self,
        datasets: dict[str, Any],
        world_size: int,
        worker_handles: Any,
        worker_node_ids: Any,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Called by Ray Train with the placeholder that `datasets_argument` gives."""
        job = self.job
        # A run that is complete but for its end has no rows left; a data set needs at least a step.
        start = min(steps_done(open_store(job.config, job.run)), job.steps - 1)
        rows = stream_dataset(
            job.train, job.order, start, job.steps, world_size, job.config.data.rows_per_block
        )
        made: list[dict[str, Any]] = super().configure(
            {"train": rows}, world_size, worker_handles, worker_node_ids, **options
        )
        return made


def datasets_argument() -> dict[str, Any]:
    """The trainer's `datasets`: only the name counts, `StepsForWorkers` makes the rows."""
    import ray.data

    return {"train": lambda: ray.data.range(1)}


class TrainDelivery:
    """Checkpoints reported through Ray Train, which uploads those that go over a network while
    training goes on.
    """

    def __init__(self, store: CheckpointStore) -> None:
        self.store = store
        self._idle = threading.Event()
        self._idle.set()
        self._failure: BaseException | None = None

    def __call__(
        self, name: str, metrics: dict[str, float], written: Path, deliver: Callable[[], None]
    ) -> None:
        """Deliver and report; every rank must call it."""
        final = train.Checkpoint(self.store.folder(name), filesystem=self.store.filesystem)
        numbers = {"step": checkpoint_step(name), **metrics}
        if self.store.local:
            deliver()
            mode = train.CheckpointUploadMode.NO_UPLOAD
            train.report(numbers, checkpoint=final, checkpoint_upload_mode=mode)
            return

        def upload(checkpoint: Any, folder: str) -> Any:
            try:
                deliver()
            except OSError as error:
                self._failure = error
                # Not its text: Ray would try again by some, and what was written is gone.
                raise RunError(f"{name} could not be uploaded") from None
            finally:
                self._idle.set()
            return final

        self._idle.clear()
        train.report(
            numbers,
            checkpoint=train.Checkpoint.from_directory(written),
            checkpoint_dir_name=name,
            checkpoint_upload_mode=train.CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=False,
            checkpoint_upload_fn=upload,
        )

    def wait(self) -> None:
        """Until the last upload is done. Raises RunError if it failed."""
        self._idle.wait()
        if self._failure is not None:
            reason = (str(self._failure).strip() or type(self._failure).__name__).splitlines()[0]
            raise RunError(
                f"{self.store.place}: a checkpoint could not be uploaded ({reason}); continue from "
                "the one before it with --resume"
            ) from self._failure


def experiment(store: CheckpointStore) -> dict[str, Any]:
    """`RunConfig` arguments that make the store Ray Train's own folder.

    Raises:
        CheckpointError: the store is a bucket, not a folder in one.
    """
    path = PurePosixPath(store.root)
    if not path.name or str(path.parent) == ".":
        raise CheckpointError(
            f"checkpoints.storage {store.place}: name a folder in it, for this run alone"
        )
    # Ray's own record would bring back what it knew, not what there is.
    store.forget("checkpoint_manager_snapshot.json")
    return {
        "name": path.name,
        "storage_path": str(path.parent),
        "storage_filesystem": store.filesystem,
    }


def leaving_nodes() -> str | None:
    """Why to stop, if a node that has workers is about to go; all ranks must call it together."""
    notice = train.get_preemption_info()
    if notice is None:
        return None
    return f"node {', '.join(notice.preempted_node_ids)} is being drained"
