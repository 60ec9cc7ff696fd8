"""raymdm rl -c FILE … : train a model from verified rewards of its own responses.

    raymdm rl -c base -c tasks/sorting_three -c rl/mdpo --set model.init_from=runs/base/model

Leaves a run directory as `raymdm train` does, with the curves of the run in rl.html and sample
rollouts in samples/. The same command with `--resume` continues, with the same prompts and noise.

    raymdm rl filter runs/base --out over-denoising.jsonl

writes the list of the training prompts that a model over-denoises, for `policy.prompts`.
"""

from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from raymdm.cluster import check_cluster, start_ray
from raymdm.command import (
    ConfigFiles,
    DumpConfig,
    Imports,
    Overrides,
    Verbose,
    check_place,
    reports_errors,
    run_as_program,
    settings,
)
from raymdm.config import Config
from raymdm.errors import ConfigurationError
from raymdm.evaluations.subject import is_run
from raymdm.reinforcement.filter import filter_prompts
from raymdm.reinforcement.job import PolicyJob, make_policy_job
from raymdm.reinforcement.worker import train_policy
from raymdm.running import run_job
from raymdm.training import RunDirectory
from raymdm.training.checkpoint import open_store
from raymdm.training.job import Outcome


class What(str, Enum):
    """What the verb does."""

    train = "train"
    filter = "filter"


@reports_errors
def main(
    what: Annotated[
        What, typer.Argument(help="`train`, or `filter`: list the prompts that over-denoise.")
    ] = What.train,
    model: Annotated[
        str | None,
        typer.Argument(
            help="filter: a run directory, a model folder or a hub id.", show_default=False
        ),
    ] = None,
    config: ConfigFiles = None,
    set_: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="train: continue from the last checkpoint.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="filter: where the list goes.")
    ] = None,
    imports: Imports = None,
    dump_config: DumpConfig = False,
    verbose: Verbose = False,
) -> None:
    """Train a masked model by reinforcement learning over its denoising steps (MDPO).

    Each step of a run rolls out `policy.group_size` responses to each of
    `policy.prompts_per_step` prompts, computes the reward of what every denoising step predicted,
    and updates the weights from the steps that made a difference. `policy.loss` also has the
    baselines diffu_grpo and coupled_grpo, which score final responses. The prompts are the train
    split of `data.folder`, prepared with `prepare.train_references=true`; the model to start from
    is `model.init_from`.

    Rollouts come from the training workers themselves or, with `policy.rollouts.actors`, from Ray
    actors that get the weights after every step; rewards are computed by Ray processes with a time
    limit. None of it changes the result, which is a function of the seed (and of
    `policy.rollouts.staleness`).

    `filter` decodes the training prompts as `evaluation.decoding` says and lists those that are
    right at some step and wrong at the end, with the settings they were found with beside the list;
    interrupted, it goes on where it stopped.

    Example: raymdm rl -c base -c rl/mdpo --set model.init_from=runs/base/model

    Example: raymdm rl filter runs/base --out hard.jsonl --set evaluation.decoding.steps=8
    """
    if what is What.filter:
        if model is None or out is None:
            raise ConfigurationError(
                "raymdm rl filter needs a model and --out FILE, as in `raymdm rl filter runs/base "
                "--out over-denoising.jsonl`"
            )
        base = RunDirectory(model).read_config() if is_run(model) else None
        checked = settings(config, set_, imports, dump_config, base)
        check_place("--out", out)
        return list_prompts(model, checked, out, verbose=verbose)
    if model is not None or out is not None:
        raise ConfigurationError(
            "a model and --out go with `raymdm rl filter`; to train give model.init_from and "
            "run_dir"
        )
    train(settings(config, set_, imports, dump_config), resume=resume, verbose=verbose)


def list_prompts(model: str, config: Config, out: Path, *, verbose: bool = False) -> None:
    """Write the list of over-denoising prompts, and say how many there are."""
    found = filter_prompts(model, config, out, progress=True, verbose=verbose)
    typer.echo(
        f"{found.over_denoised} of {found.prompts} prompts over-denoise ({found.rate:.1%}); "
        f"{found.right} are right at the end: {found.path}"
    )


def train(config: Config, *, resume: bool = False, verbose: bool = False) -> Outcome:
    """Train through Ray Train and report on stdout.

    Raises:
        UserError: data, configuration, run directory or cluster do not fit.
        DivergedError: the loss or gradient became NaN or infinite.
        StoppedError: it was asked to stop, and can go on.
        RunError: workers were lost more often than `cluster.max_failures` allows.
    """
    open_store(config, RunDirectory(config.run_dir))  # a mistake in it is told before all else
    job = make_policy_job(config, RunDirectory(config.run_dir))
    with start_ray(config.cluster.address, verbose=verbose):
        cluster = config.cluster
        check_cluster(
            (cluster.min_workers or cluster.workers) + (job.policy.rollouts.actors or 0),
            cluster.cpus_per_worker,
            cluster.gpus_per_worker,
            0,
            "set a smaller cluster.workers, policy.rollouts.actors or cluster.cpus_per_worker, or "
            "join a larger cluster",
        )
        return run_job(
            job,
            resume=resume,
            announce=partial(_announce, job),
            work=train_policy,
            beside=", curves in rl.html",
        )


def _announce(job: PolicyJob) -> None:
    policy, cluster = job.policy, job.config.cluster
    actors = policy.rollouts.actors
    typer.echo(
        f"{job.steps} steps of {policy.prompts_per_step} prompts x {policy.group_size} rollouts "
        f"({len(job.numbers)} prompts, {job.order.steps_per_epoch} steps an epoch), {policy.loss}, "
        f"{cluster.workers} workers"
        f"{'' if actors is None else f', {actors} rollout actors'}, ZeRO "
        f"{job.config.deepspeed.zero_stage}; run directory {job.run.path}",
        err=True,
    )


if __name__ == "__main__":
    run_as_program(main)
