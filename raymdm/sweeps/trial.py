"""One trial: train, evaluate, keep what was asked for. Safe to run again after any interruption."""

from typing import Any, Literal

from raymdm.command import import_modules
from raymdm.evaluate import evaluate_run
from raymdm.sweeps.design import Trial
from raymdm.training import RunDirectory, run_in_process, run_trainer
from raymdm.training.job import make_job

Path = Literal["process", "trainer"]


def run_trial(trial: Trial, path: Path) -> str:
    """Bring a trial to its end and say how it ended: `finished` or `diverged`.

    What an earlier attempt completed is not repeated: a trained model is only evaluated, a
    checkpoint is continued from. Divergence is an outcome; anything that raises is a failure of
    the infrastructure (the configuration was checked before the sweep began).
    """
    run = RunDirectory(trial.config.run_dir)
    state = trial_state(run)
    if state in ("finished", "diverged"):
        return state
    job = make_job(trial.config, run)
    run = RunDirectory.open(trial.config, job.manifest.fingerprint, resume=True)
    attempts = run.status().get("attempts", 0) + 1
    run.write_status(arm=trial.arm, seed=trial.seed, attempts=attempts)
    import_modules(trial.config.imports)
    if run.status().get("state") != "finished":
        run.write_status(state="running", step=0, steps=job.steps)
        outcome = run_in_process(job) if path == "process" else run_trainer(job)
        state = outcome.state
    if state != "diverged":
        evaluate_run(run, trial.config)
    run.prune(trial.config.keep)
    return trial_state(run)


def trial_state(run: RunDirectory) -> str:
    """`finished` (trained and evaluated), `diverged`, or what is missing: `running`,
    `interrupted`, `missing`.
    """
    state: str = run.status().get("state", "missing")
    if state == "finished" and not run.scores.exists():
        return "interrupted"
    return state


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
