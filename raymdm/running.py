"""A checked job brought to its end through Ray Train, and told of: what `train` and `rl` share."""

import time
from collections.abc import Callable

import typer

from raymdm.errors import DivergedError, StoppedError
from raymdm.progress import follow, status_line
from raymdm.training import RunDirectory, run_trainer
from raymdm.training.checkpoint import check_store, clear_up, open_store
from raymdm.training.job import Job, Outcome
from raymdm.training.launch import Work
from raymdm.training.stopping import sigterm_stops


def run_job(
    job: Job,
    *,
    resume: bool,
    announce: Callable[[], None],
    work: Work | None = None,
    beside: str = "",
) -> Outcome:
    """Open the run's directory, train, and report on stdout; Ray must be initialised.

    Args:
        job: the run.
        resume: it may have been begun before.
        announce: says on stderr what is about to be done.
        work: of every worker, as for `run_trainer`.
        beside: what the last line says after the run directory.

    Raises:
        CheckpointError: run directory or store belong to another run, or to this one without
            `resume`.
        DivergedError: the loss or gradient became NaN or infinite.
        StoppedError: it was asked to stop, and can go on.
        RunError: workers were lost more often than `cluster.max_failures` allows.
    """
    config = job.config
    if not RunDirectory(config.run_dir).config.exists():
        store = open_store(config, RunDirectory(config.run_dir))
        check_store(store, config, job.data_fingerprint, resume)
    run = RunDirectory.open(config, job.manifest.fingerprint, resume)
    status = run.status()
    if status.get("state") == "finished":
        typer.echo(f"{run.path} is finished (step {status['step']}); nothing to do")
        return Outcome("finished", status["step"])
    if status.get("state") == "diverged":
        raise DivergedError(f"{run.path}: diverged at {status['message']}")
    announce()
    run.begin(job.steps)
    started = time.monotonic()
    try:
        with follow(run), sigterm_stops(run):
            outcome = run_trainer(job, work)
    except BaseException as error:
        run.write_status(state="interrupted", message=str(error) or type(error).__name__)
        if isinstance(error, KeyboardInterrupt):
            typer.secho("stopped; continue with the same command and --resume", err=True)
        raise
    typer.echo(f"{status_line({**run.status(), 'seconds_left': None})}  (last step)")
    if outcome.state == "diverged":
        raise DivergedError(f"{run.path}: diverged at {outcome.message}")
    if outcome.state == "stopped":
        raise StoppedError(
            f"{run.path}: stopped after step {outcome.step} of {job.steps} with a checkpoint "
            f"({outcome.message}); continue with the same command and --resume"
        )
    clear_up(config, run)
    seconds = time.monotonic() - started
    typer.echo(f"finished {outcome.step} steps in {seconds:.0f} s: {run.path}{beside}")
    return outcome
