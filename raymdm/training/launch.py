"""Start the workers of a run: through Ray Train, or as this process alone."""

import os
from typing import Any

from raymdm.data.indexing import keep_rows
from raymdm.data.stream import check_fits, iterate_steps, read_steps, stream_dataset
from raymdm.errors import RaymdmError, RunError
from raymdm.training.checkpoint import FolderReporter, TrainReporter, trainer_steps_done
from raymdm.training.engine import process_group_of_one
from raymdm.training.job import Job, Outcome
from raymdm.training.worker import train_worker

PATIENCE_SECONDS = 6 * 3600
"""How long workers wait for each other: one of them may probe a large model alone for hours."""
READING_CPUS = 1
"""CPUs that Ray Data takes for itself, beside the workers'."""


def run_in_process(job: Job) -> Outcome:
    """The run with one worker, in this process, reading its rows directly."""
    keep_rows(job.train, job.config.data, job.manifest, job.run.path)
    with process_group_of_one(gpu=job.config.cluster.gpus_per_worker > 0):
        return train_worker(
            job,
            lambda start: read_steps(job.train, job.order, start, job.steps),
            FolderReporter(job.run, job.config.keep),
        )


def run_trainer(job: Job) -> Outcome:
    """The run through a Ray Train `TorchTrainer`, rows streamed by Ray Data.

    Ray must be initialised. Constructing the trainer again with the same folder resumes from its
    newest checkpoint.

    Raises:
        RunError: a worker was lost or failed; the last checkpoint stays for `--resume`.
    """
    check_fits(job.train, job.order)
    keep_rows(job.train, job.config.data, job.manifest, job.run.path)
    # Without this a report waits for the next poll of two seconds.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer

    cluster, keep = job.config.cluster, job.config.keep
    trainer = TorchTrainer(
        _train_function,
        train_loop_config={"job": job},
        torch_config=TorchConfig(timeout_s=PATIENCE_SECONDS),
        scaling_config=train.ScalingConfig(
            num_workers=cluster.workers,
            use_gpu=cluster.gpus_per_worker > 0,
            resources_per_worker=_resources(job),
        ),
        run_config=train.RunConfig(
            name=job.run.checkpoints.name,
            storage_path=str(job.run.path),
            checkpoint_config=train.CheckpointConfig(
                num_to_keep=None if keep == "all" else 1,
                checkpoint_score_attribute="validation_nelbo" if keep == "best" else None,
                checkpoint_score_order="min",
            ),
            # Workers that cannot be placed are given up at some point, not waited for for ever.
            failure_config=train.FailureConfig(max_failures=0, controller_failure_limit=2),
            worker_runtime_env={"env_vars": _worker_environment(job)},
        ),
        datasets={"train": lambda: _remaining(job)},
        dataset_config=_in_order(),
    )
    try:
        result = trainer.fit()
    except SystemExit as error:  # how Ray Train ends a run on Ctrl-C
        raise KeyboardInterrupt from error
    except Exception as error:
        cause = _worker_error(error)
        if isinstance(cause, RaymdmError):
            raise cause from error
        reason = str(cause).strip().splitlines()
        raise RunError(
            f"{job.run.path}: a worker failed ({type(cause).__name__}: "
            f"{reason[-1] if reason else 'no message'}); last checkpoint: step "
            f"{trainer_steps_done(job.run)}; continue with --resume"
        ) from error
    outcome = result.return_value
    if not isinstance(outcome, Outcome):
        raise RunError(f"{job.run.path}: the workers ended without an outcome; use --resume")
    return outcome


def _train_function(settings: dict[str, Any]) -> Outcome:
    from ray import train

    job: Job = settings["job"]
    shard = train.get_dataset_shard("train")
    workers = train.get_context().get_world_size()
    return train_worker(
        job,
        lambda start: iterate_steps(shard.iter_batches, job.order, start, workers),
        TrainReporter(),
    )


def _remaining(job: Job) -> Any:
    """The rows of the steps that the newest checkpoint has not done (evaluated at each start)."""
    # A run that is complete but for its end has no rows left; a data set needs at least a step.
    start = min(trainer_steps_done(job.run), job.steps - 1)
    return stream_dataset(
        job.train,
        job.order,
        start,
        job.steps,
        job.config.cluster.workers,
        job.config.data.rows_per_block,
    )


def _in_order() -> Any:
    from ray import train

    options = train.DataConfig.default_ingest_options()
    options.preserve_order = True
    # Locality would let a worker take a block out of turn.
    return train.DataConfig(execution_options=options, enable_shard_locality=False)


def _resources(job: Job) -> dict[str, float]:
    cluster = job.config.cluster
    resources = {"CPU": cluster.cpus_per_worker}
    if cluster.gpus_per_worker:
        resources["GPU"] = cluster.gpus_per_worker
    return resources


def _worker_environment(job: Job) -> dict[str, str]:
    threads = str(job.config.training.threads_per_worker)
    return {"OMP_NUM_THREADS": threads, "DS_LOG_LEVEL": os.environ.get("DS_LOG_LEVEL", "error")}


def _worker_error(error: BaseException) -> BaseException:
    """A worker's own exception out of Ray Train's wrapping: the one that says what to do, if any
    does; its peers only lost their connection to it.
    """
    failures = (getattr(error, "worker_failures", None) or {}).values()
    causes = [getattr(f, "cause", None) or f.__cause__ or f for f in failures]
    causes = causes or [error.__cause__ or error]
    return next((cause for cause in causes if isinstance(cause, RaymdmError)), causes[0])
