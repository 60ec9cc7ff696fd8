"""What a run leaves behind, how it resumes, and how it ends when the loss is not finite."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prepared import cut_at, losses_of, start_run, tiny_config, write_prepared

from raymdm.errors import CheckpointError, DataError
from raymdm.models import load_model
from raymdm.training import run_in_process
from raymdm.training.engine import deepspeed_config
from raymdm.training.job import Outcome
from raymdm.training.schedule import learning_rate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared")


def test_a_run_directory_is_complete(folder: Path, tmp_path: Path) -> None:
    job = start_run(tiny_config(tmp_path / "run", folder, training={"validate_every": 3}))
    assert run_in_process(job) == Outcome("finished", 6)
    metrics = pd.read_parquet(job.run.metrics)
    assert metrics["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert metrics["validation_nelbo"].notna().tolist() == [False, False, True, False, False, True]
    assert np.isfinite(metrics[["loss", "gradient_norm", "tokens_per_second"]]).all(axis=None)
    status = job.run.status()
    assert (status["state"], status["step"], status["steps"]) == ("finished", 6, 6)
    environment = json.loads((job.run.path / "environment.json").read_text())
    assert "deepspeed" in environment["packages"]
    assert (job.run.model / "tokenizer.json").exists()
    assert load_model(job.run.model).shape == job.shape
    assert (job.run.checkpoints / "step-00000006" / "progress.json").exists()


def test_a_run_cut_short_resumes_to_the_same_losses(folder: Path, tmp_path: Path) -> None:
    """Cut at step 5, after the checkpoint at step 4: step 5 is done again, all others once."""
    whole = start_run(tiny_config(tmp_path / "whole", folder))
    run_in_process(whole)

    config = tiny_config(tmp_path / "cut", folder, training={"checkpoint_every": 2})
    job = start_run(config)
    cut_at(job, 5)
    assert job.run.status()["state"] == "interrupted"
    assert len(losses_of(job)) == 5

    job = start_run(config, resume=True)
    assert run_in_process(job) == Outcome("finished", 6)
    np.testing.assert_allclose(losses_of(job), losses_of(whole), rtol=1e-6)


def test_a_run_that_lacks_only_its_end_resumes_to_it(folder: Path, tmp_path: Path) -> None:
    """Killed after the checkpoint of the last step, before the model was written."""
    job = start_run(tiny_config(tmp_path / "run", folder))
    run_in_process(job)
    losses = losses_of(job)
    shutil.rmtree(job.run.model)
    job.run.write_status(state="running")
    job = start_run(tiny_config(tmp_path / "run", folder), resume=True)
    assert run_in_process(job) == Outcome("finished", 6)
    assert job.run.model.is_dir()
    np.testing.assert_array_equal(losses_of(job), losses)


@pytest.mark.parametrize("keep", ["last", "all", "best"])
def test_keep_decides_which_checkpoints_stay(folder: Path, tmp_path: Path, keep: str) -> None:
    job = start_run(
        tiny_config(tmp_path / "run", folder, keep=keep, training={"checkpoint_every": 2})
    )
    run_in_process(job)
    found = sorted(path.name for path in job.run.checkpoints.glob("step-*"))
    if keep == "all":
        assert found == ["step-00000002", "step-00000004", "step-00000006"]
    elif keep == "last":
        assert found == ["step-00000006"]
    else:
        measured = pd.read_parquet(job.run.metrics).set_index("step")["validation_nelbo"].dropna()
        assert set(found) == {f"step-{measured.idxmin():08d}", "step-00000006"}


def test_keep_metrics_leaves_no_weights(folder: Path, tmp_path: Path) -> None:
    job = start_run(tiny_config(tmp_path / "run", folder, keep="metrics"))
    run_in_process(job)
    job.run.prune("metrics")
    assert not job.run.checkpoints.exists()
    assert not job.run.model.exists()
    assert job.run.metrics.exists()


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(folder: Path, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path / "run",
        folder,
        training={
            "learning_rate": 1e30,
            "schedule": "constant",
            "warmup_steps": 0,
            "checkpoint_every": 1,
        },
    )
    job = start_run(config)
    outcome = run_in_process(job)
    assert outcome.state == "diverged"
    assert outcome.step < 6
    assert outcome.message is not None
    assert f"step {outcome.step + 1}" in outcome.message
    assert "train.jsonl" in outcome.message
    assert f"last good checkpoint: step {outcome.step}" in outcome.message
    status = job.run.status()
    assert status["state"] == "diverged"
    assert status["message"] == outcome.message
    assert np.isfinite(losses_of(job)).all()


def test_a_run_directory_of_another_configuration_is_refused(folder: Path, tmp_path: Path) -> None:
    start_run(tiny_config(tmp_path / "run", folder))
    with pytest.raises(CheckpointError, match=r"training\.learning_rate is 0\.003 there and 0\.1"):
        start_run(
            tiny_config(tmp_path / "run", folder, training={"learning_rate": 0.1}), resume=True
        )
    with pytest.raises(CheckpointError, match="continue it with --resume"):
        start_run(tiny_config(tmp_path / "run", folder))
    start_run(tiny_config(tmp_path / "run", folder, training={"checkpoint_every": 3}), resume=True)


def test_a_run_directory_of_other_data_is_refused(folder: Path, tmp_path: Path) -> None:
    start_run(tiny_config(tmp_path / "run", write_prepared(tmp_path / "data")))
    write_prepared(tmp_path / "data", {"train": 60, "validation": 10, "test": 10})
    with pytest.raises(CheckpointError, match="is not what this run began with"):
        start_run(tiny_config(tmp_path / "run", tmp_path / "data"), resume=True)


def test_a_folder_with_something_else_in_it_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("do not overwrite")
    with pytest.raises(CheckpointError, match="is not empty and is no run directory"):
        start_run(tiny_config(tmp_path, folder))


def test_a_model_of_another_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    run_in_process(start_run(tiny_config(tmp_path / "run", folder)))
    path = tmp_path / "run" / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mask_token_id": 3}))
    with pytest.raises(CheckpointError, match="mask_token_id is 3, the prepared data has"):
        start_run(tiny_config(tmp_path / "next", folder, model={"init_from": str(path.parent)}))


def test_a_run_can_start_from_the_model_of_another(folder: Path, tmp_path: Path) -> None:
    first = start_run(tiny_config(tmp_path / "first", folder))
    run_in_process(first)
    second = start_run(
        tiny_config(tmp_path / "second", folder, model={"init_from": str(first.run.model)})
    )
    run_in_process(second)
    assert losses_of(second)[0] < losses_of(first)[0]


def test_learning_rate_warms_up_and_decays_to_zero() -> None:
    training = tiny_config(Path("run"), Path("data")).training
    rates = [learning_rate(training, step, 6) for step in range(7)]
    assert rates[:3] == pytest.approx([1e-3, 2e-3, 3e-3])
    assert rates[3:] == pytest.approx([2.25e-3, 1.5e-3, 0.75e-3, 0.0])
    cosine = training.model_copy(update={"schedule": "cosine"})
    assert learning_rate(cosine, 4, 6) == pytest.approx(1.5e-3)
    constant = training.model_copy(update={"schedule": "constant"})
    assert learning_rate(constant, 5, 6) == pytest.approx(3e-3)


def test_deepspeed_overrides_merge_but_do_not_contradict() -> None:
    from raymdm.errors import ConfigurationError

    good = {"zero_stage": 2, "overrides": {"zero_optimization": {"reduce_bucket_size": 1000}}}
    merged = deepspeed_config(tiny_config(Path("r"), Path("d"), deepspeed=good), 4, 1)
    assert merged["zero_optimization"] == {"stage": 2, "reduce_bucket_size": 1000}
    for bad in ({"gradient_clipping": 3.0}, {"zero_optimization": {"stage": 1}}):
        config = tiny_config(Path("r"), Path("d"), deepspeed={"overrides": bad})
        with pytest.raises(ConfigurationError, match="use raymdm's own keys"):
            deepspeed_config(config, 4, 1)


@pytest.mark.slow
def test_wandb_offline_keeps_the_run_on_disk(folder: Path, tmp_path: Path) -> None:
    job = start_run(tiny_config(tmp_path / "run", folder, wandb={"mode": "offline"}))
    run_in_process(job)
    assert list(job.run.path.glob("wandb/offline-run-*/*.wandb"))


def test_keep_best_needs_something_to_choose_by(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "data", {"train": 80, "validation": 0, "test": 10})
    with pytest.raises(DataError, match="has no validation rows"):
        start_run(tiny_config(tmp_path / "run", folder, keep="best"))


def test_the_best_of_a_run_is_remembered_over_a_resume(folder: Path, tmp_path: Path) -> None:
    """A later, worse score after the resume must not take the place of the best model."""
    config = tiny_config(tmp_path / "run", folder, keep="best", training={"checkpoint_every": 2})
    job = start_run(config)
    run_in_process(job)
    last = job.run.checkpoints / "step-00000006"
    progress = json.loads((last / "progress.json").read_text())
    measured = pd.read_parquet(job.run.metrics)["validation_nelbo"]
    assert progress["best"] == pytest.approx(measured.min())
