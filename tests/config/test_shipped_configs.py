"""The shipped files load, and every key of the schema is read by some code."""

import ast
from collections.abc import Iterator
from functools import cache, reduce
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

import raymdm
from raymdm.config import Config, config_files, load_config, merge_overlay
from raymdm.config.estimator import EstimatorSection
from raymdm.config.loading import read_file, validate

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


@cache
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


@cache
def content(name: str) -> dict[str, Any]:
    """A shipped file, read once."""
    return read_file(name)


def merged(*names: str) -> Config:
    """What `load_config` makes of these files."""
    return validate(reduce(merge_overlay, map(content, names), {}))


def in_force(section: EstimatorSection) -> dict[str, Any]:
    """A composition without the keys that are read only under choices that it did not make."""
    kept = section.model_dump()
    if section.time.sampler != "clipped":
        del kept["time"]["bounds"]
    if section.time.sampler != "importance":
        del kept["density"]
    elif section.density.kind in ("power", "ap"):
        del kept["density"]["probe"]
    if section.delimiters.rates == "same":
        del kept["delimiters"]["delta"]
    if section.control.kind == "none":
        kept["control"] = {"kind": "none"}
    return kept


def test_there_are_files_of_every_kind():
    assert all(shipped(kind) for kind in ("estimators", "models", "tasks", "deepspeed"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_file_loads_by_itself_and_opens_with_a_comment(path: Path):
    load_config([str(path)])
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("estimator", shipped("estimators"))
def test_shipped_files_compose(estimator: str):
    for task, model, zero in product(shipped("tasks"), shipped("models"), shipped("deepspeed")):
        config = merged("base", task, model, estimator, zero)
        for name, key in ((task, "task"), (model, "model"), (estimator, "estimator")):
            given = content(name)[key]
            assert getattr(config, key).model_dump(include=set(given)).keys() == given.keys()


@pytest.mark.parametrize("model", shipped("finetune"))
@pytest.mark.parametrize("memory", shipped("memory"))
def test_the_published_models_are_fine_tuned_as_in_the_paper(model: str, memory: str):
    """Whatever task it is laid over, and in whatever way the memory is fitted."""
    for task in shipped("tasks"):
        config = merged("base", task, model, memory)
        training = config.training
        assert (training.learning_rate, training.schedule, training.epochs) == (5e-5, "linear", 5)
        assert (training.batch_size, config.prepare.max_length) == (32, 4096)
        assert config.prepare.tokenizer == config.model.init_from


@pytest.mark.parametrize("second", shipped("estimators"))
def test_a_later_estimator_replaces_an_earlier_one_in_all_that_is_read(second: str):
    """An arm names one preset over another: of the first, only what nobody reads may remain."""
    alone = in_force(merged(second).estimator)
    for first in shipped("estimators"):
        assert in_force(merged(first, second).estimator) == alone


METHODS = ("rl/mdpo", "rl/diffu_grpo", "rl/coupled_grpo")


@pytest.mark.parametrize("second", METHODS)
def test_a_later_method_of_reinforcement_learning_replaces_an_earlier_one(second: str):
    alone = merged(second).policy
    for first in METHODS:
        assert merged(first, second).policy == alone


@pytest.mark.parametrize("method", METHODS)
def test_methods_of_reinforcement_learning_go_with_their_recipes(method: str):
    """Laid over a task and under a recipe, whose keys stay."""
    small = merged("base", "models/tiny", "tasks/sorting", "rl/sorting", method)
    assert small.policy is not None
    assert (small.policy.prompts_per_step, small.prepare.train_references) == (8, True)
    large = merged("base", "tasks/openr1_math", method, "rl/llada-8b")
    assert large.policy is not None
    assert large.policy.loss == merged(method).policy.loss
    assert (large.training.learning_rate, large.policy.decoding.steps) == (7e-7, 128)
    assert (large.policy.beta, large.policy.epsilon, large.deepspeed.zero_stage) == (0.02, 0.2, 2)


@pytest.mark.parametrize("name", shipped("estimators"))
def test_an_estimator_names_every_choice_even_where_it_is_the_default(name: str):
    """So it replaces an earlier one whatever that says; details of a choice may keep defaults."""
    given = content(name)["estimator"]
    assert given.keys() >= {"objective", "eligible", "time", "masker", "delimiters", "control"}
    assert given["time"].keys() >= {"sampler", "stratify", "strata"}
    assert given["masker"].keys() == {"kind", "views"}
    assert "rates" in given["delimiters"]
    assert "kind" in given["control"]
    if given["time"]["sampler"] == "importance":
        assert given["density"].keys() >= {"kind", "moment", "target", "mixing"}
        probed = given["density"]["kind"] not in ("power", "ap")
        assert ("kind" in given["density"].get("probe", {})) == probed


@pytest.mark.parametrize("key", sorted(leaves(Config)))
def test_every_key_is_read_by_some_code(key: str):
    """A key that nothing reads is a promise that nothing keeps."""
    assert key.rpartition(".")[2] in attributes_read()


def test_every_key_is_explained():
    def undocumented(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
        for name, field in schema.model_fields.items():
            inner = list(sections(field.annotation))
            if not field.description and not (inner and not get_args(field.annotation)):
                yield prefix + name
            for section in inner:
                yield from undocumented(section, f"{prefix}{name}.")

    assert list(undocumented(Config)) == []
