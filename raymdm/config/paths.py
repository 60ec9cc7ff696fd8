"""Paths of a configuration as absolute ones: workers run in folders of their own."""

import re
from pathlib import Path
from typing import Any

from raymdm.config.data import SourceSection, TaskSection
from raymdm.config.schema import Config

_KEYS = re.compile(r"(?<=://)[^/?#\s@]*@")


def with_absolute_paths(config: Config) -> Config:
    """The same configuration with its local paths absolute; a hub id stays as it is."""
    section = config.estimator.density
    density = section.model_copy(update={"file": section.file and _absolute(section.file)})
    start = config.model.init_from
    if start is not None and Path(start).exists():
        start = _absolute(start)
    data = {"folder": _absolute(config.data.folder), "sources": _absolute_sources(config)}
    storage = config.checkpoints.storage
    if storage is not None and "://" not in storage:
        storage = _absolute(storage)
    updates: dict[str, Any] = {
        "checkpoints": config.checkpoints.model_copy(update={"storage": storage}),
        "run_dir": _absolute(config.run_dir),
        "task": with_absolute_tables(config.task),
        "data": config.data.model_copy(update=data),
        "model": config.model.model_copy(update={"init_from": start}),
        "estimator": config.estimator.model_copy(update={"density": density}),
    }
    if config.policy is not None and config.policy.prompts is not None:
        prompts = _absolute(config.policy.prompts)
        updates["policy"] = config.policy.model_copy(update={"prompts": prompts})
    return config.model_copy(update=updates)


def with_absolute_tables(task: TaskSection) -> TaskSection:
    """The same task with the paths of `task.options.tables` absolute, where it has them."""
    tables = task.options.get("tables")
    if not isinstance(tables, list):
        return task
    paths = [_absolute(path) if isinstance(path, str) else path for path in tables]
    return task.model_copy(update={"options": {**task.options, "tables": paths}})


def folder_in(place: str, name: str) -> str:
    """A folder of a path or URI; the options of a URI (`?…`) stay behind it."""
    path, mark, options = place.partition("?")
    return f"{path.rstrip('/')}/{name}{mark}{options}"


def without_keys(text: str) -> str:
    """A text as it may be shown: URIs in it lose the user and password that they may hold."""
    return _KEYS.sub("", text)


def _absolute_sources(config: Config) -> list[SourceSection]:
    return [
        source.model_copy(
            update={"files": [name if "://" in name else _absolute(name) for name in source.files]}
        )
        for source in config.data.sources
    ]


def _absolute(path: str) -> str:
    return str(Path(path).absolute())
