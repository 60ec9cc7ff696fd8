"""A run on a GPU gives what it gives on the CPU; each goes on with the other's checkpoints."""

import functools
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from device import ON_GPU, apart
from prepared import cut_at, start_run, tiny_config, write_prepared

from raymdm.config import Config
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


HALF = {
    f"half precision, ZeRO {stage}": {
        "training": {"precision": "bf16"},
        "deepspeed": {"zero_stage": stage},
    }
    for stage in range(4)
}
CUT = [(stage, gpus) for stage in (0, 2, 3) for gpus in (1, 0)]
"""ZeRO stage of a run cut short on the GPU, and where it is to go on."""


def configured(run_dir: Path, folder: Path, gpus: int, sections: dict[str, Any]) -> Config:
    return tiny_config(run_dir, folder, **sections, cluster={"gpus_per_worker": gpus})


def train(config: Config, resume: bool = False) -> None:
    assert run_in_process(start_run(config, resume)) == Outcome("finished", 6)


def all_runs(place: str, gpus: str) -> None:
    """Every run of one device; what went wrong with one is written down beside it."""
    folder = Path(place) / "prepared"

    def attempt(name: str, sections: dict[str, Any], work: Callable[[Config], None]) -> None:
        run_dir = Path(place) / name
        try:
            work(configured(run_dir, folder, int(gpus), sections))
        except Exception:
            Path(f"{run_dir}.error").write_text(traceback.format_exc())

    on_gpu = gpus == "1"
    for name, sections in (RUNS | HALF if on_gpu else RUNS).items():
        attempt(f"{name} on {gpus}", sections, train)
    for stage, end in CUT:
        sections = {"training": {"checkpoint_every": 2}, "deepspeed": {"zero_stage": stage}}
        if on_gpu:
            attempt(f"ZeRO {stage} to {end}", sections, lambda config: cut_at(start_run(config), 5))
        if int(gpus) == end:
            attempt(f"ZeRO {stage} to {end}", sections, functools.partial(train, resume=True))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs are, those of the GPU first."""
    place = tmp_path_factory.mktemp("runs")
    write_prepared(place / "prepared")
    for gpus in (1, 0):
        apart("test_gpu_training", "all_runs", place, gpus)
    return place


def metrics(place: Path, name: str) -> pd.DataFrame:
    error = place / f"{name}.error"
    assert not error.exists(), error.read_text()
    return pd.read_parquet(place / name / "metrics.parquet")


@pytest.mark.parametrize("name", RUNS)
def test_metrics_are_those_of_the_cpu(place: Path, name: str) -> None:
    """In fp32 on both."""
    on_gpu, on_cpu = (metrics(place, f"{name} on {gpus}") for gpus in (1, 0))
    for column in ("loss", "gradient_norm", "validation_nelbo", "effective_sample_size"):
        np.testing.assert_allclose(on_gpu[column], on_cpu[column], rtol=1e-3, err_msg=column)
    np.testing.assert_allclose(on_gpu["loss"], on_cpu["loss"], rtol=1e-4)
    if name == "plain":  # the others have DeepSpeed's buffers, of some GiB whatever the model
        # Of the device, not of the process.
        assert (on_gpu["peak_memory_bytes"] < 2**30).all()


@pytest.mark.parametrize("name", HALF)
def test_half_precision_stays_near(place: Path, name: str) -> None:
    half, wide = (metrics(place, f"{run} on 1")["loss"] for run in (name, "plain"))
    np.testing.assert_allclose(half, wide, rtol=0.03)


@pytest.mark.parametrize(("stage", "end"), CUT)
def test_a_run_cut_short_on_a_gpu_goes_on_there_and_on_a_cpu(
    place: Path, stage: int, end: int
) -> None:
    resumed, whole = metrics(place, f"ZeRO {stage} to {end}"), metrics(place, "plain on 1")
    np.testing.assert_allclose(resumed["loss"], whole["loss"], rtol=1e-4)


def test_the_model_of_a_run_on_a_gpu_is_an_ordinary_one(place: Path) -> None:
    models = [load_model(place / f"plain on {gpus}" / "model") for gpus in (1, 0)]
    on_gpu, on_cpu = (model.state_dict() for model in models)
    for name, weight in on_gpu.items():
        assert weight.device.type == "cpu"
        torch.testing.assert_close(weight, on_cpu[name], rtol=1e-2, atol=1e-3)
