"""raymdm train -c FILE … : train one model with Ray Train workers running DeepSpeed.

    raymdm train -c base -c models/tiny -c estimators/ppots_mirror --set run_dir=runs/one

Leaves a run directory: config.yaml, metrics.parquet, status.json, environment.json, density.json
(importance sampling), checkpoints/ and model/ (Hugging Face layout). The same command with
`--resume` continues from the newest checkpoint, with the same rows and the same noise.
"""

import time
from contextlib import ExitStack
from typing import Annotated

import typer

from raymdm.cluster import check_cluster, start_ray
from raymdm.command import (
    ConfigFiles,
    DumpConfig,
    Imports,
    Overrides,
    Verbose,
    reports_errors,
    run_as_program,
    settings,
)
from raymdm.config import Config
from raymdm.data.indexing import are_many
from raymdm.data.mixture import describe_quotas
from raymdm.errors import ConfigurationError, DivergedError, StoppedError
from raymdm.progress import follow, status_line
from raymdm.training import RunDirectory, run_trainer
from raymdm.training.checkpoint import check_store, clear_up, open_store
from raymdm.training.job import Job, Outcome, make_job
from raymdm.training.launch import READING_CPUS
from raymdm.training.stopping import sigterm_stops

Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the run in run_dir from its last checkpoint.")
]


@reports_errors
def main(
    config: ConfigFiles = None,
    set_: Overrides = None,
    resume: Resume = False,
    imports: Imports = None,
    dump_config: DumpConfig = False,
    verbose: Verbose = False,
) -> None:
    """Train a masked diffusion language model on prepared data.

    Rows stream through Ray Data into Ray Train workers, each running a DeepSpeed engine. Batches,
    mask rates and masks are functions of the seed alone: the number of workers, the micro-batch
    and a resume do not change them.

    Example: raymdm train -c base -c models/tiny -c estimators/ppots --set run_dir=runs/one
    """
    checked = settings(config, set_, imports, dump_config)
    if checked.policy is not None:
        raise ConfigurationError(
            "the configuration has a policy, which is trained from rewards: run `raymdm rl` with it"
        )
    train(checked, resume=resume, verbose=verbose)


def train(config: Config, *, resume: bool = False, verbose: bool = False) -> Outcome:
    """Train through Ray Train and report on stdout.

    Raises:
        UserError: data, configuration, run directory or cluster do not fit.
        DivergedError: the loss or gradient became NaN or infinite.
        StoppedError: it was asked to stop, and can go on.
        RunError: workers were lost more often than `cluster.max_failures` allows.
    """
    store = open_store(config, RunDirectory(config.run_dir))
    with ExitStack() as stack:
        if are_many(config.data):  # checking them then is the cluster's work
            stack.enter_context(start_ray(config.cluster.address, verbose=verbose))
        job = make_job(config, RunDirectory(config.run_dir))
        stack.enter_context(start_ray(config.cluster.address, verbose=verbose))
        cluster = config.cluster
        check_cluster(
            cluster.min_workers or cluster.workers,
            cluster.cpus_per_worker,
            cluster.gpus_per_worker,
            READING_CPUS,
            "set a smaller cluster.workers or cluster.cpus_per_worker, or join a larger cluster",
        )
        if not RunDirectory(config.run_dir).config.exists():
            check_store(store, config, job.data_fingerprint, resume)
        run = RunDirectory.open(config, job.manifest.fingerprint, resume)
        status = run.status()
        if status.get("state") == "finished":
            typer.echo(f"{run.path} is finished (step {status['step']}); nothing to do")
            return Outcome("finished", status["step"])
        if status.get("state") == "diverged":
            raise DivergedError(f"{run.path}: diverged at {status['message']}")
        return _train(job, run)


def _train(job: Job, run: RunDirectory) -> Outcome:
    _announce(job)
    run.begin(job.steps)
    started = time.monotonic()
    try:
        with follow(run), sigterm_stops(run):
            outcome = run_trainer(job)
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
    clear_up(job.config, run)
    typer.echo(f"finished {outcome.step} steps in {time.monotonic() - started:.0f} s: {run.path}")
    return outcome


def _announce(job: Job) -> None:
    cluster, training = job.config.cluster, job.config.training
    typer.echo(
        f"{job.steps} steps of {training.batch_size} rows ({job.order.steps_per_epoch} steps an "
        f"epoch), {cluster.workers} workers, ZeRO {job.config.deepspeed.zero_stage}, "
        f"{training.precision}; run directory {job.run.path}",
        err=True,
    )
    shares = describe_quotas(job.train, job.order)
    if shares is not None:
        typer.echo(shares, err=True)


if __name__ == "__main__":
    run_as_program(main)
