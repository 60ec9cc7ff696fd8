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
from raymdm.command import quiet
from raymdm.config import Config
from raymdm.errors import CheckpointError, ClusterError
from raymdm.sweeps.design import Trial
from raymdm.sweeps.trial import ENDS, has_ended, run_trial, trial_record
from raymdm.training import RunDirectory
from raymdm.training.launch import READING_CPUS
from raymdm.training.run_directory import read_json, write_json

# CPUs of the process that only starts a trainer.
_DRIVER_CPUS = 0.1


def run_sweep(config: Config, trials: list[Trial], report: Callable[[Trial], None]) -> None:
    """Run what is missing of the trials; Ray must be initialised.

    Args:
        config: the sweep's configuration.
        trials: the design.
        report: called after each trial that ends, in this process.

    Raises:
        ClusterError: a trial that can never fit the cluster.
    """
    sweep_dir = Path(config.run_dir).absolute()
    path = choose_path(config)
    concurrency = check_fits(config, path)
    pending = [t for t in trials if not has_ended(RunDirectory(t.config.run_dir))]
    write_manifest(config, trials, sweep_dir)
    if not pending:
        return
    # Tune's own logs of each trial would repeat ours, and cost time.
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")

    def ended(name: str) -> None:
        write_manifest(config, trials, sweep_dir)
        report(next(trial for trial in trials if trial.name == name))

    resources = trial_resources(config, path)
    here = {"pending": {t.name: t for t in pending}, "path": path, "folder": os.getcwd()}
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(SweepTrial, **here), resources),
        param_space={"trial": tune.grid_search([t.name for t in pending])},
        tune_config=tune.TuneConfig(max_concurrent_trials=concurrency, reuse_actors=True),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(sweep_dir),
            failure_config=tune.FailureConfig(max_failures=config.sweep.retries),
            callbacks=[Ended(ended)],
            verbose=0,
        ),
    )
    tuner.fit()
    write_manifest(config, trials, sweep_dir)


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


def write_manifest(config: Config, trials: list[Trial], sweep_dir: Path) -> None:
    """Write `sweep.json`: the design, and the state of every trial."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    before = read_json(sweep_dir / "sweep.json")
    names = [trial["trial"] for trial in before.get("trials", [])]
    known = any(trial["state"] in ENDS for trial in before.get("trials", []))
    grown = known and any(trial.name not in names for trial in trials)
    write_json(
        sweep_dir / "sweep.json",
        {
            **declared_question(config),
            "arms": list(config.sweep.arms),
            "seeds": config.sweep.seeds,
            "vary": config.sweep.vary,
            "path": choose_path(config),
            "extended_after_results": before.get("extended_after_results", False) or grown,
            "trials": [trial_record(trial, sweep_dir) for trial in trials],
        },
    )


def declared_question(config: Config) -> dict[str, Any]:
    """What the verdict will be about, fixed before the first run."""
    return {
        "baseline": config.sweep.baseline or next(iter(config.sweep.arms)),
        "metric": config.compare.metric,
        "margin": config.compare.margin,
    }


def check_question(config: Config, sweep_dir: Path) -> None:
    """Raises CheckpointError where a sweep in that folder asked another question."""
    before = read_json(sweep_dir / "sweep.json")
    for key, value in declared_question(config).items():
        if before and before.get(key) != value:
            raise CheckpointError(
                f"{sweep_dir}: the sweep declared {key} {before.get(key)!r} before its runs, here "
                f"it is {value!r}; to look at it another way use `raymdm compare --{key}`"
            )


class SweepTrial(tune.Trainable):
    """Runs one trial as its only step; the process is then reset for the next one."""

    def setup(
        self, config: dict[str, Any], pending: dict[str, Trial], path: Any, folder: str
    ) -> None:
        """Once per process: where the user's modules are, and the trials by name."""
        quiet(verbose=False)
        sys.path.insert(0, folder)
        self.pending, self.path = pending, path

    def step(self) -> dict[str, Any]:
        """The whole trial."""
        trial = self.pending[self.config["trial"]]
        return {"state": run_trial(trial, self.path), "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The next trial needs nothing of the last one."""
        self.config = new_config
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the run directory is the state."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: the run directory is the state."""


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
