"""The trials of a sweep: every arm with every seed, at every setting drawn from the axes."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from raymdm.config import Config, merge_overlay
from raymdm.config.loading import read_file, validate
from raymdm.config.paths import folder_in, with_absolute_paths
from raymdm.config.sweep import ArmSection, AxisSection
from raymdm.config.training import Stream
from raymdm.errors import ConfigurationError
from raymdm.randomness import generator
from raymdm.sweeps.arms import equal_forwards, with_times
from raymdm.training.seeds import streams_read

# What all trials of a sweep have in common: how they are run, scored and compared.
_SHARED = frozenset(
    [
        "seed",
        "stream_seeds",
        "run_dir",
        "keep",
        "imports",
        "cluster",
        "evaluation",
        "sweep",
        "compare",
        "variance",
        "wandb",
    ]
)


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
    if sweep.axes and config.evaluation.split == "test":
        raise ConfigurationError(
            "sweep.axes with evaluation.split test would choose hyperparameters on the test rows; "
            "set evaluation.split to validation, and confirm the choice in a sweep without axes"
        )
    if sweep.vary is not None and config.stream_seeds:
        raise ConfigurationError(
            "sweep.vary and stream_seeds both say what the seeds vary; give one of them"
        )
    base = config.model_dump(exclude={"sweep", "compare", "variance"})
    trials = []
    for seed in sweep.seeds:
        for number in range(sweep.samples if sweep.axes else 1):
            settings = draw_settings(sweep.axes, number)
            group = [
                _trial(config, base, arm, section, seed, settings, number)
                for arm, section in sweep.arms.items()
            ]
            if sweep.equalise == "forwards":
                equal = equal_forwards({trial.arm: trial.config for trial in group})
                group = [replace(trial, config=equal[trial.arm]) for trial in group]
            trials += group
    return trials


def frozen_streams(config: Config, seed: int) -> dict[Stream, int]:
    """The seeds of the streams that do not follow a trial's own: those of the sweep's first one."""
    first, vary = config.sweep.seeds[0], config.sweep.vary
    if vary is None or seed == first:
        return {}
    return {stream: first for stream in get_args(Stream) if stream not in vary}


def draw_settings(axes: dict[str, AxisSection], number: int) -> dict[str, Any]:
    """The hyperparameters of setting `number`: each is a function of its key and the number, so
    that another axis does not change it.
    """
    return {
        key: _draw(axis, generator(0, "sweep", number, _word(key))) for key, axis in axes.items()
    }


def _word(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


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
    overlay: dict[str, Any] = {}
    for name in section.configs:
        overlay = merge_overlay(overlay, read_file(name))
    overlay = merge_overlay(overlay, section.overlay)
    for key, value in settings.items():
        overlay = merge_overlay(overlay, _nested(key, value))
    shared = sorted(_SHARED & set(overlay))
    if shared:
        raise ConfigurationError(
            f"arm {arm!r} or an axis sets {', '.join(shared)}; that is the same for the whole "
            "sweep: set it beside sweep, not in an arm"
        )
    setting = f"-setting{number}" if settings else ""
    name = f"{arm}{setting}-seed{seed}"
    run_dir = Path(config.run_dir) / "trials" / name
    fixed: dict[str, Any] = {"seed": seed, "run_dir": str(run_dir), "keep": config.sweep.keep}
    if config.checkpoints.storage is not None:
        fixed["checkpoints"] = {"storage": folder_in(config.checkpoints.storage, name)}
    fixed["stream_seeds"] = frozen_streams(config, seed)
    checked = validate(merge_overlay(merge_overlay(base, overlay), fixed), f"arm {arm!r}")
    if config.sweep.vary is not None and not streams_read(checked) & set(config.sweep.vary):
        raise ConfigurationError(
            f"arm {arm!r} draws nothing from sweep.vary ({', '.join(config.sweep.vary)}): its runs "
            f"would all be the same; it reads {', '.join(sorted(streams_read(checked)))}"
        )
    checked = with_times(checked, section, arm)
    return Trial(name, arm, seed, settings, with_absolute_paths(checked))


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)
