"""What the jobs of `jobs/` run: commands that this raymdm takes and their clusters can hold."""

import shlex
from importlib import import_module
from typing import Any

import pytest
import typer
import yaml
from manifests import JOB_FILES, Tree, cluster_of, containers, environment, manifest
from typer.testing import CliRunner

from raymdm.config.loading import validate
from raymdm.training.launch import READING_CPUS

every_job = pytest.mark.parametrize("name", JOB_FILES)


def commands(document: Tree) -> dict[str, list[str]]:
    """Arguments by verb, as they arrive through the submitter's shell, Ray and the job's shell."""
    # The operator puts the entrypoint into a shell command; Ray joins what that splits it into.
    submitted = shlex.join(shlex.split(document["spec"]["entrypoint"]))
    shell, option, script = shlex.split(submitted)
    assert (shell, option) == ("bash", "-c")
    found = {}
    for part in script.split("&&"):
        python, dash, module, *arguments = shlex.split(part.strip().removeprefix("exec "))
        assert (python, dash, module.partition(".")[0]) == ("python", "-m", "raymdm")
        found[module.partition(".")[2]] = arguments
    return found


def configuration(verb: str, arguments: list[str]) -> Any:
    """The configuration that a verb would run with; fails where it does not take the arguments."""
    program = typer.Typer()
    program.command()(import_module(f"raymdm.{verb}").main)
    done = CliRunner().invoke(program, [*arguments, "--dump-config"])
    assert done.exit_code == 0, done.output
    return validate(yaml.safe_load(done.stdout))


@every_job
def test_the_commands_of_a_job_are_those_of_this_raymdm(name: str) -> None:
    found = commands(manifest(name))
    assert list(found) == ["prepare", "train"]
    prepared, trained = (configuration(verb, words) for verb, words in found.items())
    assert prepared.data.folder == trained.data.folder
    for folder in (trained.data.folder, trained.run_dir):
        assert str(folder).startswith("/shared/")  # with other nodes, and with the next cluster


@every_job
def test_a_job_that_is_tried_again_resumes_from_a_checkpoint(name: str) -> None:
    arguments = commands(manifest(name))["train"]
    assert "--resume" in arguments
    assert configuration("train", arguments).training.checkpoint_every > 0


@every_job
def test_a_job_fits_its_own_cluster(name: str) -> None:
    document = manifest(name)
    config = configuration("train", commands(document)["train"])
    wanted, slots, cpus = config.cluster, 0, 0.0
    for group in cluster_of(document)["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        fits = float(limits["cpu"]) / wanted.cpus_per_worker
        if wanted.gpus_per_worker:
            fits = min(fits, int(limits.get("nvidia.com/gpu", 0)) / wanted.gpus_per_worker)
        slots += int(fits) * group["replicas"]
        cpus += float(limits["cpu"]) * group["replicas"]
    assert slots >= wanted.workers > 1
    assert cpus >= wanted.workers * wanted.cpus_per_worker + READING_CPUS


def test_the_smoke_test_needs_neither_network_nor_secrets() -> None:
    document = manifest("rayjob-cpu-smoke.yaml")
    assert configuration("prepare", commands(document)["prepare"]).prepare.train == "generate"
    for container in containers(document):
        assert "envFrom" not in container
        if container["name"] != "ray-job-submitter":
            assert environment(container)["HF_HUB_OFFLINE"] == "1"
