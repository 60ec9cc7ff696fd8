"""What a run's checkpoints hold, which stay, and what happens where one cannot be written."""

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from prepared import cut_at, losses_of, start_run, tiny_config, write_prepared
from safetensors.torch import load_file

from raymdm.config import Config
from raymdm.errors import CheckpointError, RunError
from raymdm.training import RunDirectory, run_in_process, run_trainer
from raymdm.training.checkpoint import (
    Checkpoints,
    DirectDelivery,
    Keeping,
    check_store,
    clear_up,
    open_store,
    steps_done,
)
from raymdm.training.checkpoint_store import CheckpointStore
from raymdm.training.engine import process_group_of_one
from raymdm.training.job import Job

ADAPTIVE = {
    "time": {"sampler": "importance", "stratify": "lattice"},
    "density": {"kind": "ap", "adaptive": {"bins": 3, "refit_every": 2}},
    "control": {"kind": "ema"},
}
PROBED = {
    "time": {"sampler": "importance"},
    "density": {"probe": {"rates": 16, "rows": 8, "masks": 2}, "fit_starts": 2},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared")


def _config(run_dir: Path, folder: Path, storage: str | None = None, **sections: object) -> Config:
    training = {
        "steps": 8,
        "batch_size": 16,
        "learning_rate": 3e-3,
        "checkpoint_every": 2,
        **sections.pop("training", {}),  # type: ignore[dict-item]
    }
    checkpoints = {"storage": storage, **sections.pop("checkpoints", {})}  # type: ignore[dict-item]
    return tiny_config(run_dir, folder, training=training, checkpoints=checkpoints, **sections)


def _steps(job: Job) -> list[int]:
    return [int(name.removeprefix("step-")) for name in open_store(job.config, job.run).whole()]


@pytest.mark.parametrize("estimator", [ADAPTIVE, PROBED], ids=["adaptive", "probed"])
@pytest.mark.parametrize("place", ["path", "s3"])
def test_a_run_whose_directory_is_lost_goes_on_from_its_store(
    request: pytest.FixtureRequest, tmp_path: Path, folder: Path, place: str, estimator: dict
) -> None:
    """Weights, optimiser, data position, noise, density, averages and metrics are all in it."""
    whole = start_run(_config(tmp_path / "whole", folder, estimator=estimator))
    run_in_process(whole)
    name = request.node.name.replace("[", "-").replace("]", "")
    storage = str(tmp_path / "store")
    if place == "s3":
        storage = request.getfixturevalue("bucket").format(name)
    config = _config(tmp_path / "cut", folder, storage, estimator=estimator)
    cut_at(start_run(config), 5)
    shutil.rmtree(tmp_path / "cut")

    again = start_run(config)
    assert steps_done(open_store(config, again.run)) == 4
    run_in_process(again)
    np.testing.assert_allclose(losses_of(again), losses_of(whole), rtol=1e-6)
    assert (tmp_path / "cut" / "density.json").exists()
    assert not (tmp_path / "cut" / "checkpoints").exists()


def test_half_a_checkpoint_costs_only_its_own_steps(tmp_path: Path, folder: Path) -> None:
    """As a kill leaves it: the newest folder lacks a file; the one before it counts."""
    whole = start_run(_config(tmp_path / "whole", folder))
    run_in_process(whole)
    config = _config(tmp_path / "cut", folder, checkpoints={"last": 2})
    job = start_run(config)
    cut_at(job, 7)
    assert _steps(job) == [4, 6]
    (states,) = job.run.checkpoints.glob("step-00000006/engine/*.pt")
    states.write_bytes(states.read_bytes()[:-1])
    assert _steps(job) == [4]
    run_in_process(job)
    np.testing.assert_allclose(losses_of(job), losses_of(whole), rtol=1e-6)
    # The half one was removed when a newer whole one was there.
    assert sorted(path.name for path in job.run.checkpoints.iterdir()) == [
        "step-00000006",
        "step-00000008",
    ]


@pytest.mark.parametrize(
    ("sections", "kept"),
    [
        ({}, [8]),
        ({"checkpoints": {"last": 2, "milestone_every": 4}}, [4, 6, 8]),
        ({"keep": "all"}, [2, 4, 6, 8]),
    ],
)
def test_a_run_keeps_what_it_was_told_to(
    tmp_path: Path, folder: Path, sections: dict, kept: list[int]
) -> None:
    job = start_run(_config(tmp_path / "run", folder, **sections))
    run_in_process(job)
    assert _steps(job) == kept


def test_a_full_disk_is_one_line_and_loses_no_earlier_checkpoint(
    tmp_path: Path, folder: Path
) -> None:
    job = start_run(_config(tmp_path / "run", folder))
    cut_at(job, 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    try:
        with pytest.raises(
            RunError, match=r"checkpoint of step 4 could not be written .* --resume"
        ):
            run_in_process(job)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert _steps(job) == [2]
    whole = start_run(_config(tmp_path / "whole", folder))
    run_in_process(whole)
    run_in_process(job)
    np.testing.assert_allclose(losses_of(job), losses_of(whole), rtol=1e-6)


def test_a_store_of_another_run_is_refused(tmp_path: Path, folder: Path) -> None:
    storage = str(tmp_path / "store")
    first = start_run(_config(tmp_path / "first", folder, storage))
    run_in_process(first)
    data = first.manifest.fingerprint
    store = open_store(first.config, first.run)
    with pytest.raises(CheckpointError, match=r"this run \(step 8\).*--resume"):
        check_store(store, first.config, data, resume=False)
    check_store(store, first.config, data, resume=True)
    other = _config(tmp_path / "second", folder, storage, seed=1)
    with pytest.raises(CheckpointError, match="other configuration"):
        check_store(store, other, data, resume=True)
    with pytest.raises(CheckpointError, match="other data"):
        check_store(store, first.config, "changed", resume=True)


def test_workers_do_not_go_on_from_another_runs_checkpoint(tmp_path: Path, folder: Path) -> None:
    """As when two trials of a sweep were given one store."""
    storage = str(tmp_path / "store")
    run_in_process(start_run(_config(tmp_path / "first", folder, storage)))
    other = start_run(_config(tmp_path / "second", folder, storage, seed=1))
    with pytest.raises(CheckpointError, match="another configuration or other data"):
        run_in_process(other)


def test_the_best_model_outlives_its_run_directory(tmp_path: Path, folder: Path) -> None:
    """It is written again from the checkpoint that was kept for it."""
    # At this rate the loss goes up and down.
    sections = {"keep": "best", "training": {"learning_rate": 1.0, "schedule": "cosine"}}
    job = start_run(_config(tmp_path / "run", folder, str(tmp_path / "store"), **sections))
    run_in_process(job)
    best = json.loads((job.run.model / "training_step.json").read_text())
    assert best["step"] < 8
    weights = load_file(job.run.model / "model.safetensors")
    shutil.rmtree(job.run.path)

    again = start_run(job.config)
    run_in_process(again)
    assert json.loads((again.run.model / "training_step.json").read_text()) == best
    for name, weight in load_file(again.run.model / "model.safetensors").items():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=0)


def test_keeping_metrics_only_clears_the_store_too(
    tmp_path: Path, folder: Path, bucket: str
) -> None:
    storage = bucket.format("cleared")
    job = start_run(_config(tmp_path / "run", folder, storage, keep="metrics"))
    run_in_process(job)
    store = open_store(job.config, job.run)
    assert store.names()
    clear_up(job.config, job.run)
    assert store.names() == []
    assert job.run.metrics.exists()
    assert not job.run.model.exists()


def test_a_peer_lost_while_saving_is_not_a_full_disk(tmp_path: Path) -> None:
    """What a full disk needs is the user; a lost peer needs another start."""

    def write(folder: Path) -> None:
        raise RuntimeError("[gloo] Connection closed by peer [10.0.0.2]:4711")

    with process_group_of_one(gpu=False):
        store = CheckpointStore(str(tmp_path / "store"))
        keeping = Keeping(last=1, milestone_every=0, best=False, all=False)
        checkpoints = Checkpoints(store, keeping, DirectDelivery())
        with pytest.raises(RuntimeError, match="Connection closed by peer"):
            checkpoints.save(1, {}, write)
    assert store.newest() is None


def test_an_upload_is_tried_again_before_it_is_given_up(
    tmp_path: Path, folder: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that does not take the first two tries costs nothing but time."""
    monkeypatch.setattr("raymdm.training.checkpoint._PAUSES", (0.0, 0.0))
    upload, tries = CheckpointStore.upload, []

    def failing(self: CheckpointStore, *arguments: object) -> None:
        tries.append(arguments)
        if len(tries) < 3:
            raise OSError("the store is busy")
        upload(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(CheckpointStore, "upload", failing)
    job = start_run(_config(tmp_path / "run", folder, bucket.format("busy")))
    run_in_process(job)
    assert _steps(job) == [8]
    assert len(tries) == 2 + 4


def test_a_wish_to_stop_ends_the_run_after_the_step_with_a_checkpoint(
    tmp_path: Path, folder: Path
) -> None:
    whole = start_run(_config(tmp_path / "whole", folder))
    run_in_process(whole)
    job = start_run(_config(tmp_path / "run", folder))
    cut_at(job, 3)
    job.run.ask_to_stop("SIGTERM")
    outcome = run_in_process(job)
    assert (outcome.state, outcome.step, outcome.message) == ("stopped", 3, "SIGTERM")
    assert _steps(job) == [3]
    assert job.run.status()["state"] == "interrupted"
    job.run.begin(job.steps)  # what a resume does: the wish is forgotten
    assert run_in_process(job).state == "finished"
    np.testing.assert_allclose(losses_of(job), losses_of(whole), rtol=1e-6)


def test_what_a_checkpoint_took_stands_in_the_metrics(tmp_path: Path, folder: Path) -> None:
    job = start_run(_config(tmp_path / "run", folder))
    run_in_process(job)
    metrics = pd.read_parquet(RunDirectory(job.run.path).metrics)
    took = metrics.set_index("step")["checkpoint_seconds"]
    assert took.dropna().index.tolist() == [2, 4, 6, 8]
    assert (took.dropna() > 0).all()
    for column in ("tokens_per_second", "samples_per_second", "peak_memory_bytes"):
        assert (metrics[column] > 0).all()
    assert (metrics["data_wait_seconds"] >= 0).all()
    assert metrics["mfu"].isna().all()  # of a CPU no peak is known


@pytest.mark.slow
@pytest.mark.ray
def test_workers_of_ray_train_upload_while_they_train(
    ray_cluster: None, bucket: str, tmp_path: Path, folder: Path
) -> None:
    """Two workers, ZeRO 2; then one of them goes on from the store alone."""
    sections = {"deepspeed": {"zero_stage": 2}, "checkpoints": {"last": 2}}
    whole = start_run(_config(tmp_path / "whole", folder, **sections))
    run_in_process(whole)
    storage = bucket.format("through-ray")
    config = _config(tmp_path / "run", folder, storage, cluster={"workers": 2}, **sections)
    job = start_run(config)
    assert run_trainer(job).state == "finished"
    np.testing.assert_allclose(losses_of(job), losses_of(whole), rtol=1e-4)
    assert _steps(job) == [6, 8]
    assert not list(job.run.path.glob("checkpoints/step-*"))

    store = open_store(config, job.run)
    store.drop("step-00000008")
    shutil.rmtree(job.run.path)
    again = start_run(_config(tmp_path / "run", folder, storage, **sections))
    run_in_process(again)
    np.testing.assert_allclose(losses_of(again), losses_of(whole), rtol=1e-4)
