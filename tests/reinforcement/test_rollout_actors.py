"""Rollouts by Ray actors: the same run, whoever rolls out, and whoever is lost on the way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from policy_runs import cut, metrics_of, policy_config, run_policy, same_weights, start_policy
from prepared import write_prepared

from raymdm.config import dump_yaml
from raymdm.reinforcement.worker import train_policy
from raymdm.training import RunDirectory, run_trainer
from raymdm.training.job import Outcome

pytestmark = pytest.mark.ray

PATIENCE = 300.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared", references=True)


def test_actors_change_nothing(ray_cluster: None, folder: Path, tmp_path: Path) -> None:
    """Two of them, of which each gets every version of the weights."""
    own = run_policy(policy_config(tmp_path / "own", folder))
    rollouts = {"actors": 2, "batch_size": 5}
    job = run_policy(policy_config(tmp_path / "actors", folder, policy={"rollouts": rollouts}))
    same_weights(job, own, 1e-4)
    assert metrics_of(job)["reward"].tolist() == metrics_of(own)["reward"].tolist()
    assert metrics_of(job)["staleness"].tolist() == [0, 0, 0]


def test_actors_ahead_are_as_stale_as_is_said(
    ray_cluster: None, folder: Path, tmp_path: Path
) -> None:
    rollouts = {"actors": 1, "staleness": 2}
    section = {"rollouts": rollouts, "normalisation": "group"}
    config = policy_config(tmp_path / "run", folder, policy=section, training={"steps": 4})
    metrics = metrics_of(run_policy(config))
    assert metrics["staleness"].tolist() == [0, 1, 2, 2]
    # Rolled out with the weights of the start, scored with newer ones: the ratios know.
    assert metrics["ratio_deviation"].iloc[0] < 1e-3
    assert metrics["ratio_deviation"].iloc[2] > 1e-3


@pytest.mark.slow
def test_a_resume_has_the_rollouts_that_were_made_ahead(
    ray_cluster: None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = {"rollouts": {"actors": 1, "staleness": 2}, "normalisation": "group"}
    sections: dict[str, Any] = {
        "policy": section,
        "training": {"steps": 5, "checkpoint_every": 2},
    }
    whole = run_policy(policy_config(tmp_path / "whole", folder, **sections))
    config = policy_config(tmp_path / "cut", folder, **sections)
    cut(start_policy(config), 2, monkeypatch)
    job = run_policy(config, resume=True)
    assert metrics_of(job)["staleness"].tolist() == [0, 1, 2, 2, 2]
    same_weights(job, whole, 1e-5)


MDPO: dict[str, Any] = {}
GRPO = {"loss": "coupled_grpo", "normalisation": "mean", "sample_train_steps": 8, "updates": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "method"), [(0, MDPO), (1, MDPO), (2, MDPO), (3, MDPO), (3, GRPO)]
)
def test_workers_change_nothing(
    ray_cluster: None, folder: Path, tmp_path: Path, stage: int, method: dict[str, Any]
) -> None:
    """Two groups each, of which some are skipped: workers have unequal rows, or none."""
    policy = {**method, "prompts_per_step": 2, "rewards": {"correct": 1.0, "short": 0.5}}
    own = run_policy(policy_config(tmp_path / "own", folder, policy=policy))
    config = policy_config(
        tmp_path / "workers",
        folder,
        policy={**policy, "rollouts": {"actors": 1}},
        cluster={"workers": 2, "cpus_per_worker": 0.5},
        deepspeed={"zero_stage": stage},
        training={"micro_batch_size": 3},
    )
    job = start_policy(config)
    assert run_trainer(job, train_policy) == Outcome("finished", 3)
    same_weights(job, own, 1e-3)
    for column in ("reward", "loss", "kl", "ratio_deviation", "gradient_norm", "trained_rows"):
        np.testing.assert_allclose(
            metrics_of(job)[column], metrics_of(own)[column], atol=2e-4, err_msg=column
        )
    counted = ("forwards", "backwards")
    assert [job.run.status()[name] for name in counted] == [
        own.run.status()[name] for name in counted
    ]


def wait_for(reached: Callable[[], bool], program: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert program.poll() is None, "the run ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill(program: subprocess.Popen[bytes], name: str) -> None:
    """End a process of the run's own cluster, as a lost machine would."""
    (found,) = (
        child
        for child in psutil.Process(program.pid).children(recursive=True)
        if name in " ".join(child.cmdline())
    )
    found.send_signal(signal.SIGKILL)


@pytest.mark.slow
def test_a_lost_actor_and_a_lost_worker_change_nothing(folder: Path, tmp_path: Path) -> None:
    """On a cluster of the run's own; what is lost is made again."""
    steps = {"steps": 30, "checkpoint_every": 8, "learning_rate": 1e-3}
    undisturbed = run_policy(policy_config(tmp_path / "undisturbed", folder, training=steps))
    section = {"rollouts": {"actors": 1}}
    config = policy_config(tmp_path / "killed", folder, policy=section, training=steps)
    file = tmp_path / "config.yaml"
    file.write_text(dump_yaml(config))
    here = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    program = subprocess.Popen(
        [sys.executable, "-m", "raymdm.rl", "-c", str(file)],
        env={**os.environ, "PYTHONPATH": here},
        stderr=subprocess.PIPE,
    )
    run = RunDirectory(tmp_path / "killed")

    def rolled(step: int) -> bool:
        return any(int(path.name) >= step for path in run.path.glob("rollouts/*"))

    wait_for(lambda: rolled(3), program)
    kill(program, "RolloutActor")
    wait_for(lambda: rolled(12), program)
    kill(program, "RayTrainWorker")
    _, errors = program.communicate(timeout=PATIENCE)
    assert program.returncode == 0, errors.decode()
    assert b"starting again (1 of 3)" in errors
    job = Job(run)
    same_weights(job, undisturbed, 1e-4)
    metrics = metrics_of(job)
    assert metrics["step"].tolist() == list(range(1, 31))
    assert metrics["actors_restarted"].max() >= 1
    assert metrics["reward"].tolist() == metrics_of(undisturbed)["reward"].tolist()


class Job:
    """A run that another program has made."""

    def __init__(self, run: RunDirectory) -> None:
        self.run: Any = run
