"""The trials of a sweep: every arm with every seed, at every setting drawn from the axes."""

import hashlib
from collections.abc import Mapping
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
from raymdm.sweeps.arms import equal_forwards, equal_seconds, with_times
from raymdm.training.seeds import streams_read

Settings = dict[str, Any]
"""Hyperparameters by dotted key."""
TRIALS, SEARCH = "trials", "search"
"""Folders of a sweep's runs: those of the verdict, and those that settings were chosen by."""

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


def make_design(
    config: Config,
    *,
    chosen: Mapping[str, Settings] | None = None,
    seconds_per_pass: Mapping[str, float] | None = None,
) -> list[Trial]:
    """All trials, seeds outermost, so that a sweep cut short has whole seeds of every arm.

    Args:
        config: the sweep's.
        chosen: by arm, the settings that `sweep.search` found for it; they are the arm's from then
            on, not settings that the sweep compares.
        seconds_per_pass: by arm, what `sweep.equalise: seconds` was measured to need; without it
            arms keep their steps.

    Raises:
        ConfigurationError: no arms, no seeds, or an arm whose configuration is wrong.
    """
    sweep = config.sweep
    _check_design(config)
    trials = []
    for seed in sweep.seeds:
        for number in range(sweep.samples if sweep.axes else 1):
            settings = draw_settings(sweep.axes, number)
            at = f"-setting{number}" if settings else ""
            group = [
                _trial(
                    config, arm, seed, settings, f"{arm}{at}-seed{seed}", (chosen or {}).get(arm)
                )
                for arm in sweep.arms
            ]
            trials += _equalised(config, group, seconds_per_pass)
    return trials


def make_candidate(
    config: Config,
    arm: str,
    number: int,
    settings: Settings,
    seconds_per_pass: Mapping[str, float] | None = None,
) -> list[Trial]:
    """The runs of one candidate of `sweep.search`: one for each of its seeds.

    Under equal compute the measure is the first arm at the same settings.
    """
    assert config.sweep.search is not None
    first = next(iter(config.sweep.arms))
    runs = []
    for seed in config.sweep.search.seeds:
        group = [
            _trial(
                config, each, seed, settings, f"{each}-candidate{number}-seed{seed}", None, SEARCH
            )
            for each in dict.fromkeys((first, arm))
        ]
        runs.append(_equalised(config, group, seconds_per_pass)[-1])
    return runs


def _check_design(config: Config) -> None:
    sweep = config.sweep
    if not sweep.arms or not sweep.seeds:
        raise ConfigurationError(
            "a sweep needs sweep.arms and sweep.seeds; start from `-c sweeps/quickstart`"
        )
    if sweep.axes and config.evaluation.split == "test":
        raise ConfigurationError(
            "sweep.axes with evaluation.split test would choose hyperparameters on the test rows; "
            "set evaluation.split to validation, or let sweep.search choose by the held-out NELBO"
        )
    if sweep.vary is not None and config.stream_seeds:
        raise ConfigurationError(
            "sweep.vary and stream_seeds both say what the seeds vary; give one of them"
        )
    spread = "spread" if config.compare.question == "spread" else "vary" if sweep.vary else None
    if spread and sweep.search is not None and sweep.search.halving is not None:
        asked = "compare.question is spread" if spread == "spread" else "sweep.vary is given"
        raise ConfigurationError(
            f"{asked}, so the runs are about variance: sweep.search.halving would stop runs early "
            "and censor them; leave it out"
        )
    if sweep.until == "decided":
        if config.compare.margin is None:
            raise ConfigurationError(
                "sweep.until decided needs compare.margin: the difference that matters, for which "
                "seeds are added until it is found or ruled out"
            )
        if config.compare.question == "spread":
            raise ConfigurationError(
                "sweep.until decided looks at means; compare.question spread needs all seeds: set "
                "sweep.until to all"
            )


def _equalised(
    config: Config, group: list[Trial], seconds_per_pass: Mapping[str, float] | None
) -> list[Trial]:
    """The arms of one seed and setting, with the steps that `sweep.equalise` gives them."""
    configs = {trial.arm: trial.config for trial in group}
    if config.sweep.equalise == "forwards":
        configs = equal_forwards(configs)
    elif config.sweep.equalise == "seconds" and seconds_per_pass is not None:
        configs = equal_seconds(configs, seconds_per_pass)
    return [replace(trial, config=configs[trial.arm]) for trial in group]


def frozen_streams(config: Config, seed: int, *, rolls_out: bool) -> dict[Stream, int]:
    """The seeds of the streams that do not follow a trial's own: those of the sweep's first one.

    Args:
        config: the sweep's.
        seed: of the trial.
        rolls_out: whether it has a policy; only then is there a stream `decode` to be frozen.
    """
    first, vary = config.sweep.seeds[0], config.sweep.vary
    if vary is None or seed == first:
        return {}
    there = [stream for stream in get_args(Stream) if rolls_out or stream != "decode"]
    return {stream: first for stream in there if stream not in vary}


def draw_settings(axes: dict[str, AxisSection], number: int) -> dict[str, Any]:
    """The hyperparameters of setting `number`: each is a function of its key and the number, so
    that another axis does not change it.
    """
    return {
        key: _draw(axis, generator(0, "sweep", number, word(key))) for key, axis in axes.items()
    }


def word(key: str) -> int:
    """A name as a number of 64 bits, for addresses."""
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
    arm: str,
    seed: int,
    settings: Settings,
    name: str,
    chosen: Settings | None = None,
    folder: str = TRIALS,
) -> Trial:
    section, base = config.sweep.arms[arm], _base(config)
    overlay: dict[str, Any] = {}
    for file in section.configs:
        overlay = merge_overlay(overlay, read_file(file))
    overlay = merge_overlay(overlay, section.overlay)
    for key, value in {**(chosen or {}), **settings}.items():
        overlay = merge_overlay(overlay, _nested(key, value))
    shared = sorted(_SHARED & set(overlay))
    if shared:
        raise ConfigurationError(
            f"arm {arm!r} or an axis sets {', '.join(shared)}; that is the same for the whole "
            "sweep: set it beside sweep, not in an arm"
        )
    run_dir = Path(config.run_dir) / folder / name
    fixed: dict[str, Any] = {"seed": seed, "run_dir": str(run_dir), "keep": config.sweep.keep}
    if folder == SEARCH:
        fixed["keep"] = "metrics"
    if config.checkpoints.storage is not None:
        fixed["checkpoints"] = {"storage": folder_in(config.checkpoints.storage, name)}
    merged = merge_overlay(base, overlay)
    rolls_out = merged["policy"] is not None
    fixed["stream_seeds"] = frozen_streams(config, seed, rolls_out=rolls_out)
    checked = validate(merge_overlay(merged, fixed), f"arm {arm!r}")
    if config.sweep.vary is not None and not streams_read(checked) & set(config.sweep.vary):
        raise ConfigurationError(
            f"arm {arm!r} draws nothing from sweep.vary ({', '.join(config.sweep.vary)}): its runs "
            f"would all be the same; it reads {', '.join(sorted(streams_read(checked)))}"
        )
    _check_policy(config, checked, section, arm)
    checked = with_times(checked, section, arm)
    return Trial(name, arm, seed, settings, with_absolute_paths(checked))


def _check_policy(config: Config, checked: Config, section: ArmSection, arm: str) -> None:
    """What a sweep offers to supervised training only. Raises ConfigurationError."""
    if checked.policy is None:
        return
    refused = {
        f"sweep.equalise {config.sweep.equalise} counts the passes of supervised steps; give the "
        "arms steps of their own": config.sweep.equalise != "steps",
        "sweep.search chooses by the held-out NELBO; compare settings by sweep.axes with "
        "evaluation.split validation": config.sweep.search is not None,
        "policy.rollouts.actors would wait for room that other trials have; leave them out: every "
        "trial rolls out by itself": checked.policy.rollouts.actors is not None,
        "times batch_size multiplies rows; set policy.prompts_per_step in the arm": "batch_size"
        in section.times,
    }
    for advice, given in refused.items():
        if given:
            raise ConfigurationError(f"arm {arm!r} has a policy, and {advice}")


def _base(config: Config) -> dict[str, Any]:
    return config.model_dump(exclude={"sweep", "compare", "variance"})


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)
