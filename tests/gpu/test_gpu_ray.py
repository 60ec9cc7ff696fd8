"""Ray Train gives its worker a GPU, and the run the losses that this process gives."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from device import ON_GPU, apart
from prepared import losses_of, start_run, tiny_config, write_prepared

from raymdm.config import Config
from raymdm.training import RunDirectory, run_in_process, run_trainer
from raymdm.training.job import Outcome

pytestmark = [*ON_GPU, pytest.mark.ray]


def configured(run_dir: Path, folder: Path) -> Config:
    return tiny_config(run_dir, folder, cluster={"gpus_per_worker": 1})


def here(run_dir: str, folder: str) -> None:
    run_in_process(start_run(configured(Path(run_dir), Path(folder))))


@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_of_ray_train_has_a_gpu(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "prepared")
    job = start_run(configured(tmp_path / "ray", folder))
    assert run_trainer(job) == Outcome("finished", 6)
    apart("test_gpu_ray", "here", tmp_path / "here", folder)
    alone = RunDirectory(tmp_path / "here").metrics
    np.testing.assert_allclose(losses_of(job), pd.read_parquet(alone)["loss"], rtol=1e-4)
