"""A run on a GPU gives what it gives on the CPU, and each can go on with the other's checkpoints."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from device import ON_GPU, apart
from prepared import cut_at, losses_of, start_run, tiny_config, write_prepared

from raymdm.models import load_model
from raymdm.training import run_in_process
from raymdm.training.job import Outcome

pytestmark = ON_GPU

PROBE = {"rates": 16, "rows": 8, "masks": 2, "draws": 32}
RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "micro-batches": {"training": {"micro_batch_size": 5}},
    "packed": {"training": {"batching": "packed", "micro_batch_size": 5}},
    "blocks computed again, logits in chunks": {
        "training": {"activation_checkpointing": True, "head_chunk": 7}
    },
    "compiled": {"training": {"compile": True}},
    "adapters": {"model": {"lora": {"rank": 4}}},
    "next token": {"estimator": {"objective": "autoregressive"}},
    "a density of the loss, and a control variate": {
        "estimator": {
            "time": {"sampler": "importance", "stratify": "lattice"},
            "density": {"probe": PROBE, "fit_starts": 2},
            "masker": {"kind": "mirror", "views": 2},
            "control": {"kind": "ema"},
        }
    },
    "a density of the gradient": {
        "estimator": {
            "time": {"sampler": "importance", "stratify": "lattice"},
            "density": {
                "kind": "epr_pole",
                "moment": "gradient",
                "target": "stratified",
                "probe": {**PROBE, "kind": "count"},
                "fit_starts": 2,
            },
            "masker": {"kind": "count", "views": 1},
        }
    },
    **{f"ZeRO {stage}": {"deepspeed": {"zero_stage": stage}} for stage in (1, 2, 3)},
    "states in the host's memory": {"deepspeed": {"zero_stage": 2, "offload": "optimizer"}},
    "weights in the host's memory": {"deepspeed": {"zero_stage": 3, "offload": "parameters"}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared")


def train(
    run_dir: Path, folder: Path, gpus: int, sections: dict[str, Any], **more: Any
) -> pd.DataFrame:
    config = tiny_config(
        run_dir, folder, **{**sections, **more, "cluster": {"gpus_per_worker": gpus}}
    )
    job = start_run(config)
    assert run_in_process(job) == Outcome("finished", 6)
    return pd.read_parquet(job.run.metrics)


@pytest.mark.parametrize("name", RUNS)
def test_metrics_are_those_of_the_cpu(folder: Path, tmp_path: Path, name: str) -> None:
    """In fp32 on both."""
    on_cpu = apart(train, tmp_path / "cpu", folder, 0, {**RUNS[name]})
    on_gpu = apart(train, tmp_path / "gpu", folder, 1, {**RUNS[name]})
    for column in ("loss", "gradient_norm", "validation_nelbo", "effective_sample_size"):
        np.testing.assert_allclose(on_gpu[column], on_cpu[column], rtol=1e-3, err_msg=column)
    np.testing.assert_allclose(on_gpu["loss"], on_cpu["loss"], rtol=1e-4)
    assert (on_gpu["peak_memory_bytes"] < 2**30).all()  # of the device, not of the process


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_half_precision_stays_near(folder: Path, tmp_path: Path, stage: int) -> None:
    half = {"training": {"precision": "bf16"}, "deepspeed": {"zero_stage": stage}}
    wide = apart(train, tmp_path / "fp32", folder, 1, {})
    narrow = apart(train, tmp_path / "bf16", folder, 1, half)
    np.testing.assert_allclose(narrow["loss"], wide["loss"], rtol=0.03)


def cut_short(run_dir: Path, folder: Path, stage: int) -> None:
    """To the checkpoint of step 4, on the GPU."""
    cut_at(start_run(begun(run_dir, folder, stage, gpus=1)), 5)


def ended(run_dir: Path, folder: Path, stage: int, gpus: int) -> np.ndarray:
    job = start_run(begun(run_dir, folder, stage, gpus), resume=True)
    assert run_in_process(job) == Outcome("finished", 6)
    return losses_of(job)


def begun(run_dir: Path, folder: Path, stage: int, gpus: int) -> Any:
    return tiny_config(
        run_dir,
        folder,
        training={"checkpoint_every": 2},
        deepspeed={"zero_stage": stage},
        cluster={"gpus_per_worker": gpus},
    )


@pytest.mark.parametrize(("stage", "gpus"), [(0, 1), (2, 1), (3, 1), (0, 0), (2, 0)])
def test_a_run_cut_short_on_a_gpu_resumes_there_and_on_a_cpu(
    folder: Path, tmp_path: Path, stage: int, gpus: int
) -> None:
    whole = apart(train, tmp_path / "whole", folder, 1, {})
    apart(cut_short, tmp_path / "cut", folder, stage)
    resumed = apart(ended, tmp_path / "cut", folder, stage, gpus)
    np.testing.assert_allclose(resumed, whole["loss"], rtol=1e-4)


def test_the_model_of_a_run_on_a_gpu_is_an_ordinary_one(folder: Path, tmp_path: Path) -> None:
    apart(train, tmp_path / "gpu", folder, 1, {})
    apart(train, tmp_path / "cpu", folder, 0, {})
    weights = [load_model(tmp_path / name / "model").state_dict() for name in ("gpu", "cpu")]
    for name, weight in weights[0].items():
        assert weight.device.type == "cpu"
        torch.testing.assert_close(weight, weights[1][name], rtol=1e-2, atol=1e-3)
