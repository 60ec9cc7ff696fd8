"""Every arm with every seed at every setting, each a complete configuration of its own."""

from pathlib import Path

import pytest
from prepared import tiny_config

from raymdm.config import Config
from raymdm.errors import ConfigurationError
from raymdm.sweeps import make_design

ARMS = {
    "standard": {"configs": ["estimators/standard"]},
    "mirror": {"configs": ["estimators/mirror"]},
    "wide": {"overlay": {"training": {"batch_size": 32}}},
}


def _config(**sweep: object) -> Config:
    design = {"arms": ARMS, "seeds": [3, 4], **sweep}
    validation = {"split": "validation"}
    return tiny_config(Path("runs/s"), Path("data"), sweep=design, evaluation=validation)


def test_a_grid_of_arms_and_seeds() -> None:
    trials = make_design(_config())
    assert [(trial.arm, trial.seed) for trial in trials] == [
        ("standard", 3),
        ("mirror", 3),
        ("wide", 3),
        ("standard", 4),
        ("mirror", 4),
        ("wide", 4),
    ]
    assert len({trial.config.run_dir for trial in trials}) == 6
    assert all(trial.config.seed == trial.seed for trial in trials)
    assert all(trial.config.keep == "metrics" for trial in trials)


def test_an_arm_is_an_overlay_on_the_common_configuration() -> None:
    by_arm = {trial.arm: trial.config for trial in make_design(_config())}
    assert by_arm["mirror"].estimator.masker.kind == "mirror"
    assert by_arm["wide"].training.batch_size == 32
    assert by_arm["wide"].training.steps == by_arm["standard"].training.steps == 6


def test_settings_are_drawn_once_and_shared_by_arms_and_seeds() -> None:
    axes = {
        "training.learning_rate": {"loguniform": [1e-4, 1e-2]},
        "training.warmup_steps": {"choice": [0, 5, 9]},
        "training.weight_decay": {"uniform": [0.0, 0.1]},
    }
    trials = make_design(_config(axes=axes, samples=4))
    assert len(trials) == 3 * 2 * 4
    drawn = {str(trial.settings) for trial in trials}
    assert len(drawn) == 4
    for trial in trials:
        assert 1e-4 <= trial.config.training.learning_rate <= 1e-2
        assert trial.config.training.learning_rate == trial.settings["training.learning_rate"]
        assert trial.config.training.warmup_steps in (0, 5, 9)
        assert 0.0 <= trial.config.training.weight_decay <= 0.1
    again = make_design(_config(axes=axes, samples=4))
    assert [trial.settings for trial in again] == [trial.settings for trial in trials]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"arms": {}}, "needs sweep.arms and sweep.seeds"),
        ({"seeds": []}, "needs sweep.arms and sweep.seeds"),
        ({"baseline": "other"}, "is not among the arms: standard, mirror, wide"),
        ({"seeds": [1, 1]}, "the same seed twice"),
        ({"arms": {"a": {"configs": ["estimators/mirrow"]}}}, "did you mean 'estimators/mirror'"),
        ({"arms": {"a": {"overlay": {"training": {"stepz": 3}}}}}, "arm 'a': unknown key"),
        ({"axes": {"training.lr": {"choice": [1]}}}, "unknown key 'training.lr'"),
        ({"axes": {"training.steps": {"choice": [1], "uniform": [0, 1]}}}, "exactly one of"),
        ({"axes": {"training.steps": {"loguniform": [0.0, 1.0]}}}, "positive for loguniform"),
        ({"axes": {"training.steps": {"choice": ["x"]}}}, "valid integer"),
    ],
)
def test_a_wrong_design_is_refused_before_anything_runs(sweep: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_design(_config(**sweep))


def test_another_axis_does_not_change_the_draws_of_the_first() -> None:
    first = {"training.learning_rate": {"loguniform": [1e-4, 1e-2]}}
    second = {"training.weight_decay": {"uniform": [0.0, 0.1]}}
    alone = make_design(_config(axes=first, samples=3))
    beside = make_design(_config(axes={**second, **first}, samples=3))
    for one, other in zip(alone, beside, strict=True):
        assert one.settings["training.learning_rate"] == other.settings["training.learning_rate"]


def test_hyperparameters_are_not_chosen_on_the_test_rows() -> None:
    axes = {"training.warmup_steps": {"choice": [0, 1]}}
    design = {"arms": ARMS, "seeds": [0], "axes": axes}
    with pytest.raises(ConfigurationError, match=r"set evaluation\.split to validation"):
        make_design(tiny_config(Path("runs/s"), Path("data"), sweep=design))


@pytest.mark.parametrize(
    "overlay", [{"cluster": {"workers": 2}}, {"seed": 7}, {"evaluation": {"limit": 3}}]
)
def test_an_arm_may_not_change_how_all_are_run_and_scored(overlay: dict) -> None:
    arms = {"standard": {}, "other": {"overlay": overlay}}
    with pytest.raises(ConfigurationError, match="is the same for the whole sweep"):
        make_design(_config(arms=arms))
