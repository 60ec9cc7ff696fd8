"""Arms of equal compute: multiples of the sweep's batch or steps, and equal forwards."""

from pathlib import Path
from typing import Any

import pytest
from prepared import tiny_config

from raymdm.config import Config, read_config
from raymdm.diffusion.passes import count_passes
from raymdm.errors import ConfigurationError
from raymdm.sweeps import make_design

PROBE = {"estimator": {"density": {"probe": {"rates": 8, "rows": 4, "masks": 1}}}}
ARMS = {
    "standard": {"configs": ["estimators/standard"]},
    "mirror": {"configs": ["estimators/mirror"]},
    "rotation4": {"configs": ["estimators/rotation4"]},
    "ppots": {"configs": ["estimators/ppots"], "overlay": PROBE},
}


def _by_arm(
    arms: dict[str, Any],
    training: dict[str, Any] | None = None,
    seconds: dict[str, float] | None = None,
    **sweep: Any,
) -> Any:
    content = {"arms": arms, "seeds": [0], **sweep}
    sections = {"training": training or {"steps": 50}, "sweep": content}
    config = tiny_config(Path("runs"), Path("data"), **sections)
    trials = make_design(config, seconds_per_pass=seconds)
    return {trial.arm: trial.config for trial in trials}


def _forwards(config: Config) -> int:
    training = config.training
    assert training.steps is not None
    return count_passes(config.estimator, training.batch_size, training.steps).forwards


def test_the_references_have_twice_the_batch_or_twice_the_steps() -> None:
    references = read_config(["sweeps/references"])["sweep"]["arms"]
    found = _by_arm({"mirror": ARMS["mirror"], **references})
    sizes = {arm: (c.training.steps, c.training.batch_size) for arm, c in found.items()}
    assert sizes == {
        "mirror": (50, 16),
        "standard_2x_batch": (50, 32),
        "standard_2x_steps": (100, 16),
    }
    assert len({_forwards(config) for config in found.values()}) == 1


def test_equal_forwards_leave_arms_the_steps_that_their_views_and_probe_allow() -> None:
    found = _by_arm(ARMS, equalise="forwards")
    steps = {arm: config.training.steps for arm, config in found.items()}
    # Of 800 forwards: one, two and four views; 32 for the probe.
    assert steps == {"standard": 50, "mirror": 25, "rotation4": 12, "ppots": 48}
    for arm, config in found.items():
        assert abs(_forwards(config) - 800) <= 16 * config.estimator.masker.views / 2, arm


def test_equal_seconds_leave_arms_the_steps_that_their_speed_allows() -> None:
    """A pass of mirror takes half as long as one of standard, two of them as long as one."""
    speeds = {"standard": 0.02, "mirror": 0.01, "rotation4": 0.02, "ppots": 0.02}
    found = _by_arm(ARMS, seconds=speeds, equalise="seconds")
    # The probe's 32 forwards take a third of what 32 forwards and backwards would.
    left = round(50 - 32 / 3 / 16)
    steps = {arm: config.training.steps for arm, config in found.items()}
    assert steps == {"standard": 50, "mirror": 50, "rotation4": 12, "ppots": left}


def test_by_default_arms_have_equal_steps() -> None:
    assert {config.training.steps for config in _by_arm(ARMS).values()} == {50}


def test_equal_forwards_hold_at_every_setting() -> None:
    design = {
        "arms": ARMS,
        "seeds": [0],
        "equalise": "forwards",
        "axes": {"training.steps": {"choice": [50, 70, 90]}},
        "samples": 4,
    }
    evaluation = {"split": "validation"}
    trials = make_design(
        tiny_config(Path("runs"), Path("data"), sweep=design, evaluation=evaluation)
    )
    for trial in trials:
        wanted = trial.settings["training.steps"]
        views = trial.config.estimator.masker.views
        probed = 2 if trial.arm == "ppots" else 0
        assert trial.config.training.steps == round(wanted / views) - probed


@pytest.mark.parametrize(
    ("arms", "training", "message"),
    [
        ({"longer": {"times": {"steps": 2}}}, {"steps": 50}, "'longer' has training.steps of its"),
        ({"own": {"overlay": {"training": {"steps": 3}}}}, {"steps": 50}, "leave them out"),
        ({}, {"epochs": 1, "steps": None}, "needs training.steps, not epochs"),
        ({}, {"steps": 2}, "leaves it no step of the 32 forwards that 'standard' has"),
    ],
)
def test_what_cannot_be_made_equal_is_refused(
    arms: dict[str, Any], training: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _by_arm({**ARMS, **arms}, training, equalise="forwards")


def test_a_multiple_needs_steps() -> None:
    with pytest.raises(ConfigurationError, match="'a': times needs training"):
        _by_arm({"a": {"times": {"batch_size": 2}}}, {"steps": None, "epochs": 2})
