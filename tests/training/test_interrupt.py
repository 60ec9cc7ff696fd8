"""Ctrl-C in the middle of a Ray Train run, then `--resume`: the run that was never interrupted."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prepared import tiny_config, write_prepared

from raymdm.config import dump_yaml
from raymdm.training import RunDirectory, run_in_process
from raymdm.training.checkpoint import steps_done
from raymdm.training.checkpoint_store import CheckpointStore
from raymdm.training.job import make_job

pytestmark = [pytest.mark.slow, pytest.mark.ray]
STEPS = 160


def _command(tmp_path: Path, folder: Path, *options: str) -> list[str]:
    config = tiny_config(
        tmp_path / "cut",
        folder,
        training={"steps": STEPS, "checkpoint_every": 20},
        cluster={"workers": 2, "address": "local"},
        deepspeed={"zero_stage": 2},
    )
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(config))
    return [sys.executable, "-m", "raymdm.train", "-c", str(path), *options]


def test_ctrl_c_costs_only_the_steps_since_the_last_checkpoint(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "data")
    whole = tiny_config(tmp_path / "whole", folder, training={"steps": STEPS})
    job = make_job(whole, RunDirectory(whole.run_dir))
    RunDirectory.open(whole, job.manifest.fingerprint, resume=False)
    run_in_process(job)

    cut = RunDirectory(tmp_path / "cut")
    process = subprocess.Popen(_command(tmp_path, folder), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 180
    while steps_done(CheckpointStore(str(cut.checkpoints))) < 20:
        assert process.poll() is None, "the run ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume" in errors
    assert cut.status()["state"] == "interrupted"
    assert 20 <= steps_done(CheckpointStore(str(cut.checkpoints))) < STEPS

    done = subprocess.run(
        _command(tmp_path, folder, "--resume"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    resumed = pd.read_parquet(cut.metrics)
    assert resumed["step"].tolist() == list(range(1, STEPS + 1))
    losses = pd.read_parquet(job.run.metrics)["loss"]
    np.testing.assert_allclose(resumed["loss"], losses, rtol=1e-3)
