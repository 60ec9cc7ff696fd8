"""The floors of the building: each package imports only from floors below its own."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import raymdm

PACKAGE = Path(raymdm.__file__).parent
BASE = {"config", "errors", "randomness"}
BELOW = {
    "config": {"errors"},
    "diffusion": BASE,
    "verdict": BASE,
    "tasks": BASE,
    "models": BASE | {"diffusion"},
    "decoding": BASE | {"diffusion", "models"},
    "data": BASE | {"diffusion", "tasks"},
    "training": BASE | {"diffusion", "models", "verdict", "tasks", "decoding", "data"},
    "policy": BASE | {"diffusion", "models", "verdict", "tasks", "decoding", "data"},
}
# On the top floor: free to import anything.
FREE = {"sweeps", "benchmarks", "variances", "diagnosis", "exports", "evaluations", "reinforcement"}
LIFTABLE = ("config", "diffusion", "models", "verdict", "decoding", "tasks")


def packages() -> list[str]:
    return sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, inside functions too."""
    inside = path.relative_to(PACKAGE.parent).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(inside[: -node.level]) if node.level else ""
            module = ".".join(filter(None, (start, node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def rooms(path: Path) -> set[str]:
    """The parts of raymdm that a file imports from."""
    names = [name.split(".") for name in imports(path)]
    return {name[1] for name in names if name[0] == "raymdm" and len(name) > 1}


def test_every_package_has_its_floor():
    """A new package is entered above, with the floors it may stand on."""
    assert set(packages()) == set(BELOW) | FREE & set(packages())


@pytest.mark.parametrize("package", sorted(BELOW))
def test_a_package_imports_only_from_floors_below(package: str):
    wrong = {
        str(path.relative_to(PACKAGE)): sorted(above)
        for path in (PACKAGE / package).rglob("*.py")
        if (above := rooms(path) - BELOW[package] - {package})
    }
    assert wrong == {}


@pytest.mark.parametrize("module", ["errors", "randomness"])
def test_what_all_floors_use_stands_on_the_ground(module: str):
    assert rooms(PACKAGE / f"{module}.py") == set()


@pytest.mark.parametrize("package", LIFTABLE)
def test_lower_floors_do_not_name_ray_or_deepspeed(package: str):
    for path in (PACKAGE / package).rglob("*.py"):
        assert not {"ray", "deepspeed"} & {name.partition(".")[0] for name in imports(path)}


def import_without(blocked: tuple[str, ...], modules: tuple[str, ...]) -> None:
    lines = ["import sys", *(f"sys.modules[{name!r}] = None" for name in blocked)]
    lines += [f"import raymdm.{module}" for module in modules]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent, timeout=300)
    assert done.returncode == 0, done.stderr


def test_lower_floors_import_where_ray_and_deepspeed_are_not_installed():
    import_without(("ray", "deepspeed"), LIFTABLE)


def test_the_configuration_imports_without_torch():
    import_without(("ray", "deepspeed", "torch"), ("config",))


def test_the_mathematics_of_policies_imports_where_ray_and_deepspeed_are_not_installed():
    modules = ("advantages", "loss", "responses", "rewards", "rows", "scoring", "steps")
    import_without(("ray", "deepspeed"), tuple(f"policy.{name}" for name in modules))


def test_the_process_that_computes_rewards_imports_without_torch():
    import_without(("ray", "deepspeed", "torch"), ("policy.reward_checker",))
    import_without(("deepspeed", "torch"), ("reinforcement.reward_tasks",))


def test_readers_of_data_import_without_torch():
    """Ray starts a process for every reader, and torch takes seconds to import."""
    import_without(("torch", "scipy"), ("data.stream",))
