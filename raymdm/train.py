"""raymdm train -c FILE … : train one model with Ray Train workers running DeepSpeed.

    raymdm train -c base -c models/tiny -c estimators/ppots_mirror --set run_dir=runs/one

Leaves a run directory: config.yaml, metrics.parquet, status.json, environment.json, density.json
(importance sampling), checkpoints/ and model/ (Hugging Face layout). The same command with
`--resume` continues from the newest checkpoint, with the same rows and the same noise.
"""

from contextlib import ExitStack
from functools import partial
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
from raymdm.errors import ConfigurationError
from raymdm.running import run_job
from raymdm.training import RunDirectory
from raymdm.training.checkpoint import open_store
from raymdm.training.job import Job, Outcome, make_job
from raymdm.training.launch import READING_CPUS

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
    open_store(config, RunDirectory(config.run_dir))  # a mistake in it is told before all else
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
        return run_job(job, resume=resume, announce=partial(_announce, job))


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
