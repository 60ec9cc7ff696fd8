"""One trial: train, evaluate, keep what was asked for. Safe to run again after any interruption."""

import shutil
from typing import Any, Literal

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raymdm.command import import_modules
from raymdm.errors import StoppedError, UserError
from raymdm.evaluations.run import evaluate_run
from raymdm.reinforcement.job import PolicyJob, make_job_of
from raymdm.reinforcement.worker import train_policy
from raymdm.sweeps.design import Trial
from raymdm.training import RunDirectory, run_in_process, run_trainer
from raymdm.training.checkpoint import clear_up
from raymdm.training.job import Job, Outcome

RunPath = Literal["process", "trainer"]

ENDS = ("finished", "diverged")
"""States of a trial that needs no further attempt."""


def run_trial(trial: Trial, path: RunPath) -> str:
    """Bring a trial to its end and say how it ended: `finished`, `diverged` or `failed`.

    What an earlier attempt completed is not repeated: a trained model is only evaluated, a
    checkpoint is continued from. Divergence is an outcome. A mistake of the user's is `failed` and
    not worth another attempt; anything else that raises is a failure of the infrastructure, to be
    retried by the caller.
    """
    run = RunDirectory(trial.config.run_dir)
    if has_ended(trial):
        return trial_state(run)
    try:
        return _run(trial, run, path)
    except Exception as error:
        run.path.mkdir(parents=True, exist_ok=True)
        run.write_status(state="failed", message=f"{type(error).__name__}: {error}")
        if isinstance(error, UserError):
            return "failed"
        raise


def train(job: Job, path: RunPath) -> Outcome:
    """Train a run whose directory is open, from its checkpoint if there is one."""
    job.run.begin(job.steps)
    work = train_policy if isinstance(job, PolicyJob) else None
    return run_in_process(job, work) if path == "process" else run_trainer(job, work)


def _run(trial: Trial, run: RunDirectory, path: RunPath) -> str:
    config = trial.config
    trained = run.status().get("state") == "finished"
    if trained and not run.model.is_dir():
        shutil.rmtree(run.path)  # its weights are gone before it was scored
        trained = False
    job = make_job_of(config, run)
    RunDirectory.open(config, job.manifest.fingerprint, resume=True)
    attempts = run.status().get("attempts", 0) + 1
    run.write_status(arm=trial.arm, seed=trial.seed, attempts=attempts)
    import_modules(config.imports)
    if not trained:
        outcome = train(job, path)
        if outcome.state == "stopped":
            raise StoppedError(f"{run.path}: stopped after step {outcome.step} ({outcome.message})")
        if outcome.state == "diverged":
            clear_up(config, run)
            return "diverged"
    if path == "process":
        evaluate_run(run, config)
    else:
        # This process reserved a place to start workers from, too small to evaluate in.
        remote = ray.remote(evaluate_run).options(
            num_cpus=1,
            num_gpus=config.cluster.gpus_per_worker,
            scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group=None),
        )
        ray.get(remote.remote(run, config))
    clear_up(config, run)
    return "finished"


def trial_state(run: RunDirectory) -> str:
    """`finished` (trained and evaluated), `diverged`, or what is missing: `running`,
    `interrupted`, `failed`, `missing`.
    """
    state: str = run.status().get("state", "missing")
    if state == "finished" and not run.scores.exists():
        return "interrupted"
    return state


def has_ended(trial: Trial) -> bool:
    """Whether a trial needs no further attempt: it is finished and scored, or diverged."""
    return trial_state(RunDirectory(trial.config.run_dir)) in ENDS


def trial_record(trial: Trial, sweep_dir: Any) -> dict[str, Any]:
    """The trial's entry in `sweep.json`."""
    run = RunDirectory(trial.config.run_dir)
    status = run.status()
    return {
        "trial": trial.name,
        "arm": trial.arm,
        "seed": trial.seed,
        "settings": trial.settings,
        "run_dir": str(run.path.relative_to(sweep_dir)),
        "state": trial_state(run),
        "attempts": status.get("attempts", 0),
        "message": status.get("message"),
    }
