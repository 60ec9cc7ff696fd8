"""A real sweep: divergence is an outcome, a lost process is not, nothing is done twice."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from prepared import tiny_config, write_prepared

from raymdm.config import Config
from raymdm.errors import CheckpointError, ClusterError, RunError
from raymdm.sweep import sweep
from raymdm.sweeps.driver import check_fits, choose_path

pytestmark = pytest.mark.ray

DIVERGING = {"learning_rate": 1e30, "warmup_steps": 0, "schedule": "constant"}
KILLER = """
import os, pathlib, signal
marker = pathlib.Path({marker!r})
if not marker.exists():
    marker.touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _config(run_dir: Path, folder: Path, **sections: object) -> Config:
    design = {
        "arms": {
            "standard": {"configs": ["estimators/standard"]},
            "diverging": {"overlay": {"training": DIVERGING}},
        },
        "seeds": [0, 1],
    }
    return tiny_config(run_dir, folder, sweep=design, **sections)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared")


@pytest.fixture(scope="module")
def swept(
    ray_cluster: None, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Config, Path]:
    """A sweep in which the first trial's process is killed once."""
    home = tmp_path_factory.mktemp("sweep")
    (home / "killer_once.py").write_text(KILLER.format(marker=str(home / "killed")))
    config = _config(home / "runs", folder, imports=["killer_once"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        sweep(config)
    return config, home


def _trials(home: Path) -> dict[str, dict]:
    content = json.loads((home / "runs" / "sweep.json").read_text())
    return {trial["trial"]: trial for trial in content["trials"]}


def test_every_trial_is_trained_evaluated_and_recorded(swept: tuple[Config, Path]) -> None:
    _, home = swept
    trials = _trials(home)
    assert set(trials) == {f"{a}-seed{s}" for a in ("standard", "diverging") for s in (0, 1)}
    run = home / "runs" / trials["standard-seed1"]["run_dir"]
    items = pd.read_parquet(run / "items.parquet")
    assert {"run", "arm", "seed", "item", "correct", "nll"} <= set(items.columns)
    assert set(items["arm"]) == {"standard"}
    assert set(items["seed"]) == {1}
    scores = json.loads((run / "scores.json").read_text())
    assert scores["final"]["items"] == len(items) == 10
    assert scores["step0"]["decoding"] == scores["final"]["decoding"]
    assert not (run / "model").exists()


def test_divergence_is_recorded_once_and_never_retried(swept: tuple[Config, Path]) -> None:
    _, home = swept
    for seed in (0, 1):
        trial = _trials(home)[f"diverging-seed{seed}"]
        assert trial["state"] == "diverged"
        assert "step" in trial["message"]
        assert trial["attempts"] <= 2  # one of the four trials was killed once
    assert sum(trial["attempts"] for trial in _trials(home).values()) == 5
    verdict = json.loads((home / "runs" / "summary.json").read_text())
    arm = verdict["metrics"]["accuracy"]["arms"]["diverging"]
    assert arm["n_diverged"] == 2
    assert arm["verdict"] != "better"


def test_a_killed_process_costs_a_retry_with_the_same_seed(swept: tuple[Config, Path]) -> None:
    _, home = swept
    assert (home / "killed").exists()
    killed = [trial for trial in _trials(home).values() if trial["attempts"] == 2]
    assert len(killed) == 1
    assert killed[0]["state"] in ("finished", "diverged")


def test_the_same_command_again_runs_only_what_is_missing(swept: tuple[Config, Path]) -> None:
    config, home = swept
    trials = home / "runs" / "trials"
    before = {path: path.stat().st_mtime_ns for path in trials.rglob("metrics.parquet")}
    lost = pd.read_parquet(trials / "standard-seed0" / "metrics.parquet")
    shutil.rmtree(trials / "standard-seed0")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        sweep(config)
    after = {path: path.stat().st_mtime_ns for path in trials.rglob("metrics.parquet")}
    changed = {path.parent.name for path in after if before.get(path) != after[path]}
    assert changed == {"standard-seed0"}
    again = pd.read_parquet(trials / "standard-seed0" / "metrics.parquet")
    assert again["loss"].tolist() == lost["loss"].tolist()
    assert (home / "runs" / "report.html").exists()


def test_another_configuration_in_the_same_folder_is_refused(swept: tuple[Config, Path]) -> None:
    config, _ = swept
    changed = config.model_copy(
        update={"training": config.training.model_copy(update={"learning_rate": 0.5})}
    )
    with pytest.raises(CheckpointError, match="belongs to another configuration"):
        sweep(changed)


def test_the_question_cannot_be_changed_after_the_runs(swept: tuple[Config, Path]) -> None:
    config, _ = swept
    changed = config.model_copy(
        update={"compare": config.compare.model_copy(update={"metric": "nelbo"})}
    )
    with pytest.raises(CheckpointError, match="declared metric 'accuracy' before its runs"):
        sweep(changed)


def test_seeds_added_after_the_results_are_noted(swept: tuple[Config, Path]) -> None:
    config, home = swept
    more = config.model_copy(update={"sweep": config.sweep.model_copy(update={"seeds": [0, 1, 2]})})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        sweep(more)
    summary = json.loads((home / "runs" / "summary.json").read_text())
    assert any("runs were added after others had ended" in note for note in summary["notes"])


def test_a_trial_that_can_never_fit_is_refused(ray_cluster: None, folder: Path) -> None:
    config = _config(Path("runs"), folder, cluster={"workers": 4})
    with pytest.raises(
        ClusterError, match=r"4 workers of 0\.5 CPUs .* do not fit the cluster: it has 2 CPUs"
    ):
        check_fits(config, choose_path(config))


def test_one_worker_trials_run_two_at_a_time_on_two_cpus(ray_cluster: None, folder: Path) -> None:
    config = _config(Path("runs"), folder)
    assert choose_path(config) == "process"
    assert check_fits(config, "process") == 2
    # Through Ray Train, a trial also needs a CPU to read its data.
    assert check_fits(config, "trainer") == 1


def test_a_mistake_that_shows_only_in_a_trial_is_told_and_not_retried(
    ray_cluster: None, tmp_path: Path
) -> None:
    """The user's module breaks where only the trial imports it."""
    folder = write_prepared(tmp_path / "data")
    design = {"arms": {"standard": {}}, "seeds": [0]}
    config = tiny_config(tmp_path / "runs", folder, sweep=design, imports=["no_such_module"])
    with pytest.raises(RunError, match="1 of 1 trials did not finish"):
        sweep(config)
    trial = _trials(tmp_path)["standard-seed0"]
    assert trial["state"] == "failed"
    assert "no_such_module" in trial["message"]
    assert trial["attempts"] == 1


@pytest.mark.slow
def test_trials_with_two_workers_go_through_ray_train(
    ray_cluster: None, folder: Path, tmp_path: Path
) -> None:
    config = tiny_config(
        tmp_path / "runs",
        folder,
        # The process that starts the workers takes a tenth of a CPU, reading the data a whole one.
        cluster={"workers": 2, "cpus_per_worker": 0.4},
        sweep={
            "arms": {"standard": {}, "mirror": {"configs": ["estimators/mirror"]}},
            "seeds": [0],
        },
    )
    sweep(config)
    content = json.loads((tmp_path / "runs" / "sweep.json").read_text())
    assert content["path"] == "trainer"
    assert {trial["state"] for trial in content["trials"]} == {"finished"}
