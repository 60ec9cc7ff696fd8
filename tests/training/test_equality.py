"""A run gives the same losses however it is spread over workers and micro-batches."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prepared import tiny_config, write_prepared

from raymdm.training import RunDirectory, run_in_process, run_trainer
from raymdm.training.job import Outcome, make_job

PROBED = {
    "time": {"sampler": "importance", "stratify": "lattice"},
    "density": {"probe": {"rates": 16, "rows": 8, "masks": 2}, "fit_starts": 2},
    "masker": {"kind": "mirror", "views": 2},
    "control": {"kind": "ema"},
}
ADAPTIVE = {
    "time": {"sampler": "importance", "stratify": "strata"},
    "density": {"kind": "ap", "adaptive": {"bins": 3, "refit_every": 2}},
    "masker": {"kind": "count", "views": 2},
    "normalize": "token",
}
COLUMNS = [
    "loss",
    "gradient_norm",
    "validation_nelbo",
    "learning_rate",
    "effective_sample_size",
    "variance_between_views",
    "variance_between_rates",
    "variance_between_rows",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared")


def _train(folder: Path, run_dir: Path, through: object, **sections: object) -> pd.DataFrame:
    config = tiny_config(run_dir, folder, **{"estimator": PROBED, **sections})
    job = make_job(config, RunDirectory(run_dir))
    run = RunDirectory.open(config, job.manifest.fingerprint, resume=False)
    assert through(job) == Outcome("finished", job.steps)  # type: ignore[operator]
    return pd.read_parquet(run.metrics)


@pytest.fixture(scope="module")
def reference(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """One worker, this process, the whole batch in one forward."""
    return _train(folder, tmp_path_factory.mktemp("runs") / "reference", run_in_process)


def _assert_same(metrics: pd.DataFrame, reference: pd.DataFrame, tolerance: float) -> None:
    for column in COLUMNS:
        np.testing.assert_allclose(
            metrics[column], reference[column], rtol=tolerance, err_msg=column
        )


def test_micro_batches_change_nothing(
    folder: Path, tmp_path: Path, reference: pd.DataFrame
) -> None:
    """Sixteen rows in micro-batches of five: the last one is smaller."""
    metrics = _train(folder, tmp_path / "run", run_in_process, training={"micro_batch_size": 5})
    _assert_same(metrics, reference, 1e-4)


WAYS = {
    "rows of like length together": {"training": {"batching": "bucketed", "micro_batch_size": 5}},
    "no padding": {"training": {"batching": "packed", "micro_batch_size": 5}},
    "logits of seven positions at a time": {"training": {"head_chunk": 7}},
    "blocks computed again": {"training": {"activation_checkpointing": True}},
    "ZeRO 3": {"deepspeed": {"zero_stage": 3}},
    "states in the host's memory": {"deepspeed": {"zero_stage": 2, "offload": "optimizer"}},
    "weights in the host's memory": {"deepspeed": {"zero_stage": 3, "offload": "parameters"}},
    "all that saves memory": {
        "deepspeed": {"zero_stage": 3},
        "training": {
            "batching": "packed",
            "micro_batch_size": 5,
            "head_chunk": 7,
            "activation_checkpointing": True,
        },
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_save_memory_or_time_change_nothing(
    folder: Path, tmp_path: Path, reference: pd.DataFrame, way: str
) -> None:
    _assert_same(_train(folder, tmp_path / "run", run_in_process, **WAYS[way]), reference, 1e-5)


@pytest.fixture(scope="module")
def half(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """ZeRO 2 in half precision."""
    sections = {"training": {"precision": "bf16"}, "deepspeed": {"zero_stage": 2}}
    run_dir = tmp_path_factory.mktemp("runs") / "half"
    return _train(folder, run_dir, run_in_process, estimator={}, **sections)


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_in_half_precision_every_stage_takes_the_same_steps(
    folder: Path, tmp_path: Path, half: pd.DataFrame, stage: int
) -> None:
    """Without ZeRO DeepSpeed takes a first step of its own, which must leave no trace."""
    sections = {"training": {"precision": "bf16"}, "deepspeed": {"zero_stage": stage}}
    metrics = _train(folder, tmp_path / "run", run_in_process, estimator={}, **sections)
    np.testing.assert_allclose(metrics["loss"], half["loss"], rtol=5e-4)


@pytest.mark.slow
def test_compiled_blocks_change_nothing(
    folder: Path, tmp_path: Path, reference: pd.DataFrame
) -> None:
    ways = {"compile": True, "batching": "packed", "micro_batch_size": 5}
    _assert_same(_train(folder, tmp_path / "run", run_in_process, training=ways), reference, 1e-5)


@pytest.mark.parametrize("stage", [2, 3])
def test_adapters_train_alike_however_the_model_is_sharded(
    folder: Path, tmp_path: Path, reference: pd.DataFrame, stage: int
) -> None:
    model = {"hidden_size": 16, "layers": 1, "heads": 2, "lora": {"rank": 4}}
    plain = _train(folder, tmp_path / "plain", run_in_process, model=model)
    sharded = _train(
        folder,
        tmp_path / "run",
        run_in_process,
        model=model,
        deepspeed={"zero_stage": stage},
        training={"activation_checkpointing": True},
    )
    _assert_same(sharded, plain, 1e-5)
    assert abs(plain["loss"] / reference["loss"] - 1).max() > 1e-3


def test_another_seed_does(folder: Path, tmp_path: Path, reference: pd.DataFrame) -> None:
    metrics = _train(folder, tmp_path / "run", run_in_process, seed=1)
    assert (np.abs(metrics["loss"] / reference["loss"] - 1) > 1e-3).any()


@pytest.mark.slow  # two workers are held to the plain process below
@pytest.mark.ray
def test_ray_train_with_one_worker_gives_the_losses_of_the_plain_process(
    ray_cluster: None, folder: Path, tmp_path: Path, reference: pd.DataFrame
) -> None:
    """The two paths of a sweep's trial."""
    _assert_same(_train(folder, tmp_path / "run", run_trainer), reference, 1e-6)


@pytest.mark.ray
@pytest.mark.parametrize(
    "stage", [2, *(pytest.param(s, marks=pytest.mark.slow) for s in (0, 1, 3))]
)
def test_two_workers_give_the_losses_of_one(
    ray_cluster: None, folder: Path, tmp_path: Path, reference: pd.DataFrame, stage: int
) -> None:
    """Ray Train, ZeRO, accumulation: the global batch is the same rows, rates and masks."""
    metrics = _train(
        folder,
        tmp_path / "run",
        run_trainer,
        cluster={"workers": 2},
        deepspeed={"zero_stage": stage},
        training={"micro_batch_size": 3},
    )
    _assert_same(metrics, reference, 1e-4)


@pytest.mark.slow
@pytest.mark.ray
def test_two_workers_refit_the_density_of_one(
    ray_cluster: None, folder: Path, tmp_path: Path
) -> None:
    """From the losses of all workers, in the order of the slots."""
    alone = _train(folder, tmp_path / "alone", run_in_process, estimator=ADAPTIVE)
    together = _train(
        folder, tmp_path / "run", run_trainer, estimator=ADAPTIVE, cluster={"workers": 2}
    )
    _assert_same(together, alone, 1e-4)
    moved = alone["density_drift"].dropna()
    assert len(moved) == 3
    assert (moved > 0).all()
    np.testing.assert_allclose(together["density_drift"].dropna(), moved, rtol=1e-3)
