"""Arms that are trained from rewards, beside those that are not."""

from pathlib import Path
from typing import Any

import pytest
from prepared import tiny_config, write_prepared

from raymdm.config import load_config
from raymdm.errors import ConfigurationError
from raymdm.sweep import plan_sweep
from raymdm.sweeps import make_design
from raymdm.sweeps.trial import run_trial, trial_state
from raymdm.training import RunDirectory

DECODING = {"response_length": 3, "steps": 3, "temperature": 1.0}
POLICY = {"prompts_per_step": 2, "group_size": 2, "decoding": DECODING}
ARMS: dict[str, Any] = {
    "rows": {},
    "rewards": {"overlay": {"policy": POLICY, "training": {"steps": 1}}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared", references=True)


def test_a_trial_is_trained_as_its_arm_says_and_scored_like_the_others(
    folder: Path, tmp_path: Path
) -> None:
    sweep = {"arms": ARMS, "seeds": [0]}
    config = tiny_config(tmp_path / "sweep", folder, sweep=sweep, training={"steps": 2})
    for trial in make_design(config):
        assert run_trial(trial, "process") == "finished"
        run = RunDirectory(trial.config.run_dir)
        assert trial_state(run) == "finished"
        assert run.items.is_file()
        # Four rollouts of three steps; a new model is never right, so that nothing was learned.
        counted = {"rows": (32, 32), "rewards": (12, 0)}[trial.arm]
        status = run.status()
        assert (status["forwards"], status["backwards"]) == counted


def test_the_shipped_sweep_has_equal_rollouts() -> None:
    config = load_config(["base", "models/tiny", "tasks/sorting", "rl/sorting", "sweeps/rl"], [])
    trials = make_design(config)
    assert {trial.arm for trial in trials} == {"mdpo", "diffu_grpo"}
    policies = [trial.config.policy for trial in trials]
    assert len({(p.prompts_per_step, p.group_size, str(p.decoding)) for p in policies if p}) == 1
    assert len({trial.config.training.steps for trial in trials}) == 1
    assert {trial.config.policy.loss for trial in trials if trial.config.policy} == {
        "mdpo",
        "diffu_grpo",
    }


def test_rollouts_are_frozen_where_seeds_vary_something_else(folder: Path) -> None:
    sweep = {"arms": ARMS, "seeds": [3, 4], "vary": ["order"]}
    trials = make_design(tiny_config(Path("runs/s"), folder, sweep=sweep, training={"steps": 2}))
    frozen = {(trial.arm, trial.seed): trial.config.stream_seeds.get("decode") for trial in trials}
    assert frozen == {
        ("rows", 3): None,
        ("rewards", 3): None,
        ("rows", 4): None,
        ("rewards", 4): 3,
    }


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ({"equalise": "forwards"}, "sweep.equalise forwards counts the passes"),
        (
            {"search": {"axes": {"seed": {"choice": [1]}}, "seeds": [9]}},
            "sweep.search chooses by the held-out NELBO",
        ),
        (
            {"arms": {"rewards": {**ARMS["rewards"], "times": {"batch_size": 2}}}},
            "set policy.prompts_per_step",
        ),
    ],
)
def test_what_only_supervised_arms_have_is_refused(
    folder: Path, sweep: dict[str, Any], words: str
) -> None:
    design = {"arms": ARMS, "seeds": [0], **sweep}
    with pytest.raises(ConfigurationError, match=words):
        make_design(tiny_config(Path("runs/s"), folder, sweep=design, training={"steps": 2}))


def test_no_plan_is_made_of_rollouts(folder: Path, tmp_path: Path) -> None:
    design = {"arms": ARMS, "seeds": [0, 1, 2, 3]}
    with pytest.raises(ConfigurationError, match="run the sweep without it"):
        plan_sweep(tiny_config(tmp_path / "sweep", folder, sweep=design))
