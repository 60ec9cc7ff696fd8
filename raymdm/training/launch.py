"""Start the workers of a run: through Ray Train, or as this process alone."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from raymdm.data.indexing import keep_rows
from raymdm.data.stream import check_fits, iterate_steps, read_steps
from raymdm.errors import RaymdmError, RunError, UnreachableError
from raymdm.training.checkpoint import Checkpoints, Keeping, open_store, steps_done
from raymdm.training.engine import process_group_of_one
from raymdm.training.engine_run import Notice
from raymdm.training.job import Job, Outcome
from raymdm.training.ray_workers import (
    StepsForWorkers,
    TrainDelivery,
    WorkersConfig,
    datasets_argument,
    experiment,
    leaving_nodes,
)
from raymdm.training.worker import train_worker

PATIENCE_SECONDS = 6 * 3600
"""How long workers wait for each other: one of them may probe a large model alone for hours."""
_PAUSE_SECONDS = 10.0
"""Before a store of checkpoints that did not answer is tried again; twice as long the second time,
and so on."""
READING_CPUS = 1
"""CPUs that Ray Data takes for itself, beside the workers'."""


Work = Callable[[Job, Checkpoints, Notice | None], Outcome]
"""What a worker does instead of supervised training; it reads its own rows."""


def run_in_process(job: Job, work: Work | None = None) -> Outcome:
    """The run with one worker, in this process, reading its rows directly."""
    keep_rows(job.train, job.config.data, job.manifest, job.run.path)
    with process_group_of_one(gpu=job.config.cluster.gpus_per_worker > 0):
        checkpoints = Checkpoints.direct(job.config, job.run)
        if work is not None:
            return work(job, checkpoints, None)
        return train_worker(
            job, lambda start: read_steps(job.train, job.order, start, job.steps), checkpoints
        )


def run_trainer(job: Job, work: Work | None = None) -> Outcome:
    """The run through a Ray Train `TorchTrainer`, rows streamed by Ray Data.

    Ray must be initialised. A run that loses workers, their node, Ray Train's controller or the
    store of its checkpoints starts again from the newest whole one, `cluster.max_failures` times.

    Args:
        job: the run.
        work: of every worker, in place of supervised training; then no rows are streamed.

    Raises:
        RunError: the budget is used up; the last checkpoint stays for `--resume`.
    """
    if work is None:
        check_fits(job.train, job.order)
    keep_rows(job.train, job.config.data, job.manifest, job.run.path)
    budget = job.config.cluster.max_failures
    for failure in range(1, budget + 2):
        try:
            return _fit(job, work)
        except (_LostError, UnreachableError) as lost:
            where = f"{job.run.path}: {lost}; {_last_checkpoint(job)}"
            if failure > budget:
                raise RunError(
                    f"{where}; given up after {failure} failures (cluster.max_failures is "
                    f"{budget}); continue with --resume"
                ) from lost
            # Said once for every start, so that a log shows why steps come twice.
            print(f"{where}; starting again ({failure} of {budget})", file=sys.stderr, flush=True)
            if isinstance(lost, UnreachableError):
                time.sleep(_PAUSE_SECONDS * failure)
    raise AssertionError("unreachable")


def _last_checkpoint(job: Job) -> str:
    try:
        return f"last checkpoint: step {steps_done(open_store(job.config, job.run))}"
    except UnreachableError:
        return "its checkpoints do not answer now"


class _LostError(Exception):
    """Something other than the run's own doing ended its workers."""


def _fit(job: Job, work: Work | None) -> Outcome:
    # Without this a report waits for the next poll of two seconds.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    from ray import train
    from ray.train.torch import TorchTrainer

    cluster, store = job.config.cluster, open_store(job.config, job.run)
    least = cluster.min_workers or cluster.workers
    if least == cluster.workers:
        # A node that replaces a lost one may take its time to come.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    streamed: dict[str, Any] = {}
    if work is None:
        streamed = {"datasets": datasets_argument(), "dataset_config": StepsForWorkers(job)}
    trainer = TorchTrainer(
        _train_function,
        train_loop_config={"job": job, "work": work},
        torch_config=WorkersConfig(timeout_s=PATIENCE_SECONDS),
        scaling_config=train.ScalingConfig(
            num_workers=cluster.workers if least == cluster.workers else (least, cluster.workers),
            use_gpu=cluster.gpus_per_worker > 0,
            resources_per_worker=_resources(job),
        ),
        run_config=train.RunConfig(
            **experiment(store),
            # Starting again is ours: Ray would also repeat what the user has to mend. Workers that
            # cannot be placed are given up at some point, not waited for for ever.
            failure_config=train.FailureConfig(
                max_failures=0, max_preemption_failures=0, controller_failure_limit=2
            ),
            worker_runtime_env={"env_vars": _worker_environment(job)},
        ),
        **streamed,
    )
    try:
        result = trainer.fit()
    except SystemExit as error:  # how Ray Train ends a run on Ctrl-C
        raise KeyboardInterrupt from error
    except Exception as error:
        cause = _worker_error(error)
        if isinstance(cause, RaymdmError) and not isinstance(cause, UnreachableError):
            raise cause from error
        # Of an exception the last line says most, of Ray's own explanations the first sentence.
        reason = (str(cause).strip() or "no message").splitlines()[-1].split(". ")[0]
        raise _LostError(f"a worker failed ({type(cause).__name__}: {reason})") from error
    outcome = result.return_value
    if not isinstance(outcome, Outcome):
        raise RunError(f"{job.run.path}: the workers ended without an outcome; use --resume")
    return outcome


def _train_function(settings: dict[str, Any]) -> Outcome:
    from ray import train

    job: Job = settings["job"]
    work: Work | None = settings["work"]
    store = open_store(job.config, job.run)
    checkpoints = Checkpoints(store, Keeping.of(job.config), TrainDelivery(store))
    if work is not None:
        return work(job, checkpoints, leaving_nodes)
    shard = train.get_dataset_shard("train")
    workers = train.get_context().get_world_size()
    return train_worker(
        job,
        lambda start: iterate_steps(shard.iter_batches, job.order, start, workers),
        checkpoints,
        leaving_nodes,
    )


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
