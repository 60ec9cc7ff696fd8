"""Paths of a configuration as absolute ones: workers run in folders of their own."""

from pathlib import Path
from typing import Any

from raymdm.config.schema import Config


def with_absolute_paths(config: Config) -> Config:
    """The same configuration with its local paths absolute; a hub id stays as it is."""
    section = config.estimator.density
    density = section.model_copy(update={"file": section.file and _absolute(section.file)})
    start = config.model.init_from
    if start is not None and Path(start).exists():
        start = _absolute(start)
    updates: dict[str, Any] = {
        "run_dir": _absolute(config.run_dir),
        "data": config.data.model_copy(update={"folder": _absolute(config.data.folder)}),
        "model": config.model.model_copy(update={"init_from": start}),
        "estimator": config.estimator.model_copy(update={"density": density}),
    }
    return config.model_copy(update=updates)


def _absolute(path: str) -> str:
    return str(Path(path).absolute())
