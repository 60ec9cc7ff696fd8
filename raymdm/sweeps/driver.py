"""The Ray Tune driver of a sweep: a plain grid over trials, in reused processes.

Trials with one worker run inside Tune's own trial process, which is kept for the next trial, so
that imports are paid once; trials with several workers start a `TorchTrainer` from theirs. Both
call the same worker function. What is done is read from the run directories, so running the same
sweep again finishes only what is missing.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import ray
from ray import tune

from raymdm.cluster import check_cluster, worker_slots
from raymdm.config import Config
from raymdm.errors import ClusterError
from raymdm.sweeps.design import Trial
from raymdm.sweeps.kept_process import KeptProcess
from raymdm.sweeps.manifest import write_manifest
from raymdm.sweeps.trial import has_ended, run_trial
from raymdm.training.launch import READING_CPUS

# CPUs of the process that only starts a trainer.
_DRIVER_CPUS = 0.1


def run_sweep(config: Config, trials: list[Trial], report: Callable[[Trial], None]) -> None:
    """Run what is missing of the trials; Ray must be initialised.

    Args:
        config: the sweep's configuration.
        trials: all that are planned so far.
        report: called after each trial that ends, in this process.

    Raises:
        ClusterError: a trial that can never fit the cluster.
    """
    sweep_dir = Path(config.run_dir).absolute()
    path = choose_path(config)
    concurrency = check_fits(config, path)
    pending = [t for t in trials if not has_ended(t)]
    write_manifest(config, trials, sweep_dir, path)
    if not pending:
        return

    def ended(name: str) -> None:
        write_manifest(config, trials, sweep_dir, path)
        report(next(trial for trial in trials if trial.name == name))

    here = {"pending": {t.name: t for t in pending}, "path": path, "folder": os.getcwd()}
    run_tuner(
        tune.with_resources(
            tune.with_parameters(SweepTrial, **here), trial_resources(config, path)
        ),
        config,
        name="tune",
        concurrency=concurrency,
        param_space={"trial": tune.grid_search([t.name for t in pending])},
        callbacks=[Ended(ended)],
    )
    write_manifest(config, trials, sweep_dir, path)


def run_tuner(
    trainable: Any,
    config: Config,
    *,
    name: str,
    concurrency: int,
    param_space: dict[str, Any] | None = None,
    callbacks: list[tune.Callback] | None = None,
    **search: Any,
) -> None:
    """Run Tune to its end, in processes that are kept from one trial to the next.

    Args:
        trainable: with its resources.
        config: the sweep's.
        name: of Tune's own folder in the sweep's.
        concurrency: trials at the same time.
        param_space: a grid, where nothing is searched.
        callbacks: told about trials.
        search: of `TuneConfig`: search_alg, scheduler, num_samples.
    """
    # Tune's own logs of each trial would repeat ours, and cost time.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    tuner = tune.Tuner(
        trainable,
        param_space=param_space,
        tune_config=tune.TuneConfig(max_concurrent_trials=concurrency, reuse_actors=True, **search),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(Path(config.run_dir).absolute()),
            failure_config=tune.FailureConfig(max_failures=config.sweep.retries),
            callbacks=callbacks,
            verbose=0,
        ),
    )
    tuner.fit()


def choose_path(config: Config) -> Literal["process", "trainer"]:
    """`process` for one worker, `trainer` for several, unless the configuration says so.

    Raises:
        ClusterError: `process` was asked for with several workers.
    """
    wanted, workers = config.sweep.path, config.cluster.workers
    if wanted == "process" and workers > 1:
        raise ClusterError(
            f"sweep.path process runs one worker per trial, cluster.workers is {workers}; "
            "set sweep.path to auto"
        )
    return ("process" if workers == 1 else "trainer") if wanted == "auto" else wanted


def trial_resources(config: Config, path: str) -> dict[str, float]:
    """What Tune reserves for the process of a trial."""
    if path == "trainer":
        return {"cpu": _DRIVER_CPUS}
    resources = {"cpu": config.sweep.cpus_per_trial}
    if config.cluster.gpus_per_worker:
        resources["gpu"] = config.cluster.gpus_per_worker
    return resources


def trial_cpus(config: Config, path: str) -> float:
    """CPUs of a whole trial, its workers and the reading of its data included."""
    if path == "process":
        return config.sweep.cpus_per_trial
    return config.cluster.workers * config.cluster.cpus_per_worker + READING_CPUS + _DRIVER_CPUS


def check_fits(config: Config, path: str) -> int:
    """How many trials may run together without waiting for each other's resources.

    Tune reserves the trial's process and Train its workers, separately: started one too many, all
    could wait for ever.

    Raises:
        ClusterError: not even one fits.
    """
    cluster = config.cluster
    if path == "process":
        fits = worker_slots(config.sweep.cpus_per_trial, cluster.gpus_per_worker)
        check_cluster(1, config.sweep.cpus_per_trial, cluster.gpus_per_worker, 0, _ADVICE)
    else:
        beside = READING_CPUS + _DRIVER_CPUS
        check_cluster(
            cluster.workers, cluster.cpus_per_worker, cluster.gpus_per_worker, beside, _ADVICE
        )
        fits = int(ray.cluster_resources()["CPU"] / trial_cpus(config, path) + 1e-9)
        slots = worker_slots(cluster.cpus_per_worker, cluster.gpus_per_worker)
        fits = min(fits, slots // cluster.workers)
    return min(fits, config.sweep.concurrency or fits)


_ADVICE = "set a smaller cluster.workers, cluster.cpus_per_worker or sweep.cpus_per_trial"


class SweepTrial(KeptProcess):
    """Runs one trial as its only step."""

    def setup(
        self, config: dict[str, Any], pending: dict[str, Trial], path: Any, folder: str
    ) -> None:
        """Once per process: where the user's modules are, and the trials by name."""
        self.prepare(folder)
        self.pending, self.path = pending, path

    def step(self) -> dict[str, Any]:
        """The whole trial."""
        trial = self.pending[self.config["trial"]]
        return {"state": run_trial(trial, self.path), "done": True}


class Ended(tune.Callback):
    """Tells the driver about trials that ended."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report

    def __getstate__(self) -> dict[str, Any]:
        """Tune stores its callbacks; a sweep never restores from there."""
        return {}

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process was lost; it starts again with the same seed."""
        print(f"{trial.config['trial']}: its process was lost, trying again", file=sys.stderr)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ran to its end."""
        self.report(trial.config["trial"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed for good."""
        self.report(trial.config["trial"])
