"""The shipped files load, and every key of the schema is read by some code."""

import ast
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

import raymdm
from raymdm.config import Config, config_files, load_config, read_config

FILES = config_files()
PACKAGE = Path(raymdm.__file__).parent


def shipped(folder: str) -> list[str]:
    return [f"{folder}/{path.stem}" for path in FILES if path.parent.name == folder]


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections inside a field's type, such as the arms of `dict[str, ArmSection]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from sections(argument)


def leaves(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key that holds a value of its own."""
    for name, field in schema.model_fields.items():
        inner = list(sections(field.annotation))
        if not inner or get_args(field.annotation):
            yield prefix + name
        for section in inner:
            yield from leaves(section, f"{prefix}{name}.")


def attributes_read() -> set[str]:
    """Names of all attributes read anywhere in the package, the schema's own files left out."""
    names: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if path.is_relative_to(PACKAGE / "config"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                names.add(node.attr)
    return names


def test_there_are_files_of_every_kind():
    assert all(shipped(kind) for kind in ("estimators", "models", "tasks", "deepspeed"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_file_loads_by_itself_and_opens_with_a_comment(path: Path):
    load_config([str(path)])
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("estimator", shipped("estimators"))
def test_shipped_files_compose(estimator: str):
    for task, model, zero in product(shipped("tasks"), shipped("models"), shipped("deepspeed")):
        files = ["base", task, model, estimator, zero]
        config = load_config(files, ["training.steps=3"])
        assert config.training.steps == 3
        for name, key in ((task, "task"), (model, "model"), (estimator, "estimator")):
            given = read_config([name])[key]
            assert getattr(config, key).model_dump(include=set(given)).keys() == given.keys()


def test_a_later_estimator_replaces_an_earlier_one_completely():
    """An arm names one preset over another: nothing of the first may remain."""
    for first, second in product(shipped("estimators"), repeat=2):
        assert load_config([first, second]).estimator == load_config([second]).estimator


@pytest.mark.parametrize("key", sorted(leaves(Config)))
def test_every_key_is_read_by_some_code(key: str):
    """A key that nothing reads is a promise that nothing keeps."""
    assert key.rpartition(".")[2] in attributes_read_once()


def attributes_read_once(cache: list[set[str]] = []) -> set[str]:  # noqa: B006
    if not cache:
        cache.append(attributes_read())
    return cache[0]


def test_every_key_is_explained():
    def undocumented(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
        for name, field in schema.model_fields.items():
            inner = list(sections(field.annotation))
            if not field.description and not (inner and not get_args(field.annotation)):
                yield prefix + name
            for section in inner:
                yield from undocumented(section, f"{prefix}{name}.")

    assert list(undocumented(Config)) == []
