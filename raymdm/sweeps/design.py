"""The trials of a sweep: every arm with every seed, at every setting drawn from the axes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raymdm.config import Config, merge_overlay
from raymdm.config.loading import read_file, validate
from raymdm.config.sweep import ArmSection, AxisSection
from raymdm.diffusion.noise import generator
from raymdm.errors import ConfigurationError


@dataclass(frozen=True)
class Trial:
    """One training run of a sweep.

    Attributes:
        name: unique in the sweep; the run directory's name.
        arm: the arm.
        seed: the seed.
        settings: hyperparameters drawn from the axes, by dotted key.
        config: the complete configuration of the run, paths absolute.
    """

    name: str
    arm: str
    seed: int
    settings: dict[str, Any]
    config: Config


def make_design(config: Config) -> list[Trial]:
    """All trials, seeds outermost, so that a sweep cut short has whole seeds of every arm.

    Raises:
        ConfigurationError: no arms, no seeds, or an arm whose configuration is wrong.
    """
    sweep = config.sweep
    if not sweep.arms or not sweep.seeds:
        raise ConfigurationError(
            "a sweep needs sweep.arms and sweep.seeds; start from `-c sweeps/quickstart`"
        )
    base = config.model_dump(exclude={"sweep", "compare"})
    trials = []
    for seed in sweep.seeds:
        for number in range(sweep.samples if sweep.axes else 1):
            settings = draw_settings(sweep.axes, number)
            for arm, section in sweep.arms.items():
                trials.append(_trial(config, base, arm, section, seed, settings, number))
    return trials


def draw_settings(axes: dict[str, AxisSection], number: int) -> dict[str, Any]:
    """The hyperparameters of setting `number`: a pure function of the axes and the number."""
    random = generator(0, "sweep", number)
    return {key: _draw(axis, random) for key, axis in sorted(axes.items())}


def _draw(axis: AxisSection, random: np.random.Generator) -> Any:
    if axis.choice is not None:
        return axis.choice[int(random.integers(len(axis.choice)))]
    if axis.uniform is not None:
        return float(random.uniform(*axis.uniform))
    assert axis.loguniform is not None
    return float(np.exp(random.uniform(*np.log(axis.loguniform))))


def _trial(
    config: Config,
    base: dict[str, Any],
    arm: str,
    section: ArmSection,
    seed: int,
    settings: dict[str, Any],
    number: int,
) -> Trial:
    content = base
    for name in section.configs:
        content = merge_overlay(content, read_file(name))
    content = merge_overlay(content, section.overlay)
    for key, value in settings.items():
        content = merge_overlay(content, _nested(key, value))
    setting = f"-setting{number}" if settings else ""
    name = f"{arm}{setting}-seed{seed}"
    run_dir = Path(config.run_dir).absolute() / "trials" / name
    fixed = {"seed": seed, "run_dir": str(run_dir), "keep": config.sweep.keep}
    checked = validate(
        _absolute({**{k: v for k, v in content.items() if k not in ("sweep", "compare")}, **fixed}),
        f"arm {arm!r}",
    )
    return Trial(name, arm, seed, settings, checked)


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _absolute(content: dict[str, Any]) -> dict[str, Any]:
    """Paths as absolute ones: a trial runs in a folder of its own."""
    for section, key in (("data", "folder"), ("model", "init_from")):
        value = content[section].get(key)
        if value is not None and Path(value).exists():
            content = merge_overlay(content, {section: {key: str(Path(value).absolute())}})
    density = content["estimator"]["density"].get("file")
    if density is not None:
        absolute = str(Path(density).absolute())
        content = merge_overlay(content, {"estimator": {"density": {"file": absolute}}})
    return content
