"""A run that trains adapters: small checkpoints, an exact resume, merged weights at the end."""

from pathlib import Path

import numpy as np
import pytest
import torch
from prepared import cut_at, losses_of, start_run, tiny_config, write_prepared

from raymdm.data.stream import read_steps
from raymdm.errors import CheckpointError
from raymdm.models import build_model, load_model, save_model
from raymdm.training import run_in_process
from raymdm.training.checkpoint import Checkpoints
from raymdm.training.engine import process_group_of_one
from raymdm.training.job import Outcome
from raymdm.training.starting import initial_model
from raymdm.training.worker import Worker

MODEL = {"hidden_size": 16, "layers": 1, "heads": 2, "lora": {"rank": 2}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared")


@pytest.mark.parametrize("stage", [0, 3])
def test_the_exported_model_has_the_logits_of_the_one_that_was_trained(
    folder: Path, tmp_path: Path, stage: int
) -> None:
    config = tiny_config(tmp_path / "run", folder, model=MODEL, deepspeed={"zero_stage": stage})
    job = start_run(config)
    ids = torch.arange(12).view(2, 6)
    with process_group_of_one(gpu=False):
        worker = Worker(job, Checkpoints.direct(config, job.run))
        for rows in read_steps(job.train, job.order, 0, job.steps):
            assert worker.step(rows) is None
        worker.close("finished")
        worker.engine.eval()
        with torch.no_grad():
            trained = worker.engine(ids)
    exported = load_model(job.run.model)(ids)
    torch.testing.assert_close(exported, trained, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(exported, initial_model(config, job.shape)(ids), atol=1e-3)


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_run_cut_short_resumes_to_the_same_losses(
    folder: Path, tmp_path: Path, stage: int
) -> None:
    """The frozen weights are in no checkpoint: they are the start's."""
    sections = {"model": MODEL, "deepspeed": {"zero_stage": stage}}
    whole = start_run(tiny_config(tmp_path / "whole", folder, **sections))
    run_in_process(whole)
    config = tiny_config(tmp_path / "cut", folder, **sections, training={"checkpoint_every": 2})
    job = start_run(config)
    cut_at(job, 5)
    job = start_run(config, resume=True)
    assert run_in_process(job) == Outcome("finished", 6)
    np.testing.assert_allclose(losses_of(job), losses_of(whole), rtol=1e-6)
    states = job.run.checkpoints.rglob("*.pt")
    held = max(
        _numbers(torch.load(path, weights_only=False)["module"])
        for path in states
        if "model_states" in path.name
    )
    assert held < 0.5 * sum(p.numel() for p in load_model(job.run.model).parameters())


def _numbers(state: dict[str, torch.Tensor]) -> int:
    return sum(tensor.numel() for tensor in state.values())


def test_a_resume_from_other_starting_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    """Adapters of one model would silently go on over another."""
    size = {"hidden_size": 16, "layers": 1, "heads": 2}
    first = start_run(tiny_config(tmp_path / "first", folder, model=size))
    save_model(build_model(first.shape, 1), tmp_path / "start")
    config = tiny_config(
        tmp_path / "run",
        folder,
        model={"init_from": str(tmp_path / "start"), "lora": {"rank": 2}},
        training={"checkpoint_every": 2},
    )
    cut_at(start_run(config), 5)
    save_model(build_model(first.shape, 2), tmp_path / "start")
    with pytest.raises(CheckpointError, match="not the weights that"):
        run_in_process(start_run(config, resume=True))
    save_model(build_model(first.shape, 1), tmp_path / "start")
    assert run_in_process(start_run(config, resume=True)) == Outcome("finished", 6)
