"""The recipe of the image that the pods of `jobs/` run."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECIPE = (ROOT / "jobs" / "Dockerfile").read_text()
PINS = dict(re.findall(r"^(\S+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))


def instructions() -> list[str]:
    """Without comments, one instruction a line."""
    lines = [line for line in RECIPE.splitlines() if not line.startswith("#")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


def arguments(instruction: str) -> dict[str, str]:
    """What each instruction of a kind says, by its first word (`NAME=value` split there)."""
    found = [line.split(maxsplit=1)[1] for line in instructions() if line.startswith(instruction)]
    return {text.partition("=")[0]: text.partition("=")[2] for text in found}


def test_torch_ray_and_deepspeed_come_in_the_versions_of_the_constraints() -> None:
    assert {"torch", "ray", "deepspeed"} <= set(PINS)
    installs = [
        part.split("pip install")[1].split()
        for line in instructions()
        for part in line.split("&&")
        if "pip install" in part
    ]
    assert [words[-1] for words in installs] == ["torch", "packaging", "deepspeed", "."]
    for words in installs:
        constrained = "-c constraints.txt" in " ".join(words)
        # What DeepSpeed is built with, and not run with, may be of any version.
        assert constrained or words[-3:] == ["setuptools", "wheel", "packaging"]
        assert not any("==" in word for word in words)  # a second place to change a version


def test_the_tag_it_is_built_with_is_the_version_of_ray() -> None:
    assert re.findall(r"-t raymdm:(\S+)", RECIPE) == [PINS["ray"]]


def test_deepspeed_is_built_with_an_operation_for_gpus_that_may_not_be_there() -> None:
    build = arguments("ARG")["DEEPSPEED_BUILD"].strip('"').split()
    assert "DS_ACCELERATOR=cuda" in build
    assert any(word.startswith("DS_BUILD_") and word.endswith("=1") for word in build)
    assert "-devel-" in arguments("ARG")["BASE"]  # has nvcc
    assert any("env ${DEEPSPEED_BUILD} pip install" in line for line in instructions())
    system = next(line for line in instructions() if "apt-get install" in line).split()
    assert {"g++", "ninja-build", "python3-dev"} <= set(system)


def test_it_runs_as_the_user_of_the_pods() -> None:
    *_, user = [line.split()[1] for line in instructions() if line.startswith("USER")]
    assert int(user) > 0
    used = [
        int(value)
        for path in (ROOT / "jobs").glob("*.yaml")
        for value in re.findall(r"runAs(?:User|Group): (\d+)", path.read_text())
    ]
    assert used
    assert set(used) == {int(user)}


def test_it_gets_what_the_package_is_built_from_and_nothing_else() -> None:
    kept = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        name for line in instructions() if line.startswith("COPY") for name in line.split()[1:-1]
    }
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)
