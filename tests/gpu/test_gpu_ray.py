"""Ray Train gives its worker a GPU, and the run the losses that this process gives."""

from pathlib import Path

import numpy as np
import pytest
from device import ON_GPU, apart
from prepared import losses_of, start_run, tiny_config, write_prepared

from raymdm.config import Config
from raymdm.training import run_in_process, run_trainer
from raymdm.training.job import Outcome

pytestmark = [*ON_GPU, pytest.mark.ray]


def configured(run_dir: Path, folder: Path) -> Config:
    return tiny_config(run_dir, folder, cluster={"gpus_per_worker": 1})


def here(run_dir: Path, folder: Path) -> np.ndarray:
    job = start_run(configured(run_dir, folder))
    run_in_process(job)
    return losses_of(job)


@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_of_ray_train_has_a_gpu(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "prepared")
    job = start_run(configured(tmp_path / "ray", folder))
    assert run_trainer(job) == Outcome("finished", 6)
    np.testing.assert_allclose(losses_of(job), apart(here, tmp_path / "here", folder), rtol=1e-4)
