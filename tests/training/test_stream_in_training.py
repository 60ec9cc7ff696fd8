"""Estimators in a run: every preset trains; what its stream says; what a resume brings back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from prepared import tiny_config, write_prepared
from safetensors.torch import load_file

from raymdm.config import config_files
from raymdm.config.loading import merge_overlay, read_file
from raymdm.data.stream import StepRows, read_steps
from raymdm.diffusion import TimeDensity, make_estimator
from raymdm.diffusion.compose import estimator_section, needs_probe
from raymdm.training import RunDirectory, run_in_process, train_worker
from raymdm.training.checkpoint import Checkpoints
from raymdm.training.engine import gather_slots, process_group_of_one
from raymdm.training.job import Job, Outcome, make_job
from raymdm.training.stream import TrainingStream

PRESETS = [path.stem for path in config_files() if path.parent.name == "estimators"]
SMALL_PROBE = {
    "density": {"probe": {"rates": 8, "rows": 4, "masks": 1, "draws": 16}, "fit_starts": 1}
}
ADAPTIVE = {"density": {"adaptive": {"bins": 3, "refit_every": 2}}}
NOISE = [
    "effective_sample_size",
    "weight_min",
    "weight_max",
    "variance_between_views",
    "variance_between_rates",
    "variance_between_rows",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared", marked=True)


def started(
    run_dir: Path,
    folder: Path,
    preset: str,
    overlay: dict[str, Any] | None = None,
    *,
    resume: bool = False,
    **sections: object,
) -> Job:
    estimator = read_file(f"estimators/{preset}")["estimator"]
    estimator = merge_overlay(estimator, overlay or {})
    config = tiny_config(run_dir, folder, estimator=estimator, **sections)
    job = make_job(config, RunDirectory(config.run_dir))
    RunDirectory.open(config, job.manifest.fingerprint, resume)
    return job


def trained(job: Job) -> pd.DataFrame:
    """The metrics of the finished run."""
    assert run_in_process(job) == Outcome("finished", job.steps)
    return pd.read_parquet(job.run.metrics)


def weights(job: Job) -> dict[str, torch.Tensor]:
    return load_file(job.run.model / "model.safetensors")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains(folder: Path, tmp_path: Path, preset: str) -> None:
    short = {"training": {"steps": 3, "batch_size": 16, "learning_rate": 3e-3, "warmup_steps": 0}}
    job = started(tmp_path / "run", folder, preset, SMALL_PROBE, **short)
    metrics = trained(job)
    assert np.isfinite(metrics[["loss", "gradient_norm"]]).all(axis=None)
    assert np.isfinite(metrics["validation_nelbo"].iloc[-1])
    assert set(NOISE) <= set(metrics.columns)
    assert (metrics["weight_min"] > 0).all()
    section = estimator_section(preset)
    importance = section.time.sampler == "importance"
    assert (metrics["effective_sample_size"] < 1).all() == importance
    assert job.run.density.exists() == needs_probe(section)


def test_an_ema_run_ends_in_the_very_weights_of_a_standard_run(
    folder: Path, tmp_path: Path
) -> None:
    """Only the reported loss differs, and not before the first average is there."""
    jobs = [started(tmp_path / name, folder, name) for name in ("standard", "ema")]
    plain, steadied = (trained(job) for job in jobs)
    one, other = (weights(job) for job in jobs)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    same = ["gradient_norm", "validation_nelbo", *NOISE]
    pd.testing.assert_frame_equal(plain[same], steadied[same], check_exact=True)
    assert plain["loss"][0] == steadied["loss"][0]
    assert (plain["loss"][1:] != steadied["loss"][1:]).all()


def cut_short(job: Job, at: int) -> None:
    """Stop as Ctrl-C would, before the rows of step `at` are there."""

    def batches(start: int) -> Iterator[StepRows]:
        for rows in read_steps(job.train, job.order, start, job.steps):
            if rows.step == at:
                raise KeyboardInterrupt
            yield rows

    with process_group_of_one(gpu=False), pytest.raises(KeyboardInterrupt):
        train_worker(job, batches, Checkpoints.direct(job.config, job.run))


@pytest.mark.parametrize("preset", ["adaptive", "ema"])
def test_what_was_learnt_from_the_stream_survives_a_resume(
    folder: Path, tmp_path: Path, preset: str
) -> None:
    """Cut at step 5, after the checkpoint at step 3 and the refits at steps 2 and 4."""
    whole = started(tmp_path / "whole", folder, preset, ADAPTIVE)
    wanted = trained(whole)
    saves = {"training": {"checkpoint_every": 3}}
    cut_short(started(tmp_path / "cut", folder, preset, ADAPTIVE, **saves), at=5)
    job = started(tmp_path / "cut", folder, preset, ADAPTIVE, resume=True, **saves)
    found = trained(job)
    columns = ["loss", "gradient_norm", *NOISE]
    np.testing.assert_allclose(found[columns], wanted[columns], rtol=1e-6)
    if preset == "adaptive":
        np.testing.assert_allclose(found["density_drift"], wanted["density_drift"], rtol=1e-6)
        densities = [TimeDensity.load(run.run.density).cells for run in (job, whole)]
        np.testing.assert_allclose(*densities, rtol=1e-6)


def test_an_adaptive_density_moves_at_its_refits_and_changes_the_rates_after_them(
    folder: Path, tmp_path: Path
) -> None:
    """Until the first refit it is the run of another that never refits; then no longer."""
    job = started(tmp_path / "adaptive", folder, "adaptive", ADAPTIVE)
    never = {"density": {"adaptive": {"bins": 3, "refit_every": 100}}}
    adaptive = trained(job)
    still = trained(started(tmp_path / "still", folder, "adaptive", never))
    moved = adaptive["density_drift"]
    assert moved.notna().tolist() == [False, True, False, True, False, True]
    assert moved[1] > 0.05
    assert (moved.dropna() > 0).all()
    assert still["density_drift"].isna().all()
    assert (adaptive["loss"] == still["loss"]).tolist() == [True, True, False, False, False, False]
    last = json.loads(job.run.density.read_text())
    assert (last["kind"], last["target"]) == ("ap", "iid")
    assert adaptive["weight_max"].max() <= 1 / 0.05


@pytest.fixture(scope="module")
def noise_of(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    home = tmp_path_factory.mktemp("runs")
    names = ("standard", "power", "mirror", "count")
    return {name: trained(started(home / name, folder, name)) for name in names}


def test_uniform_rates_leave_the_whole_batch(noise_of: dict[str, pd.DataFrame]) -> None:
    for name in ("standard", "mirror", "count"):
        ones = noise_of[name][["effective_sample_size", "weight_min", "weight_max"]]
        assert (ones == 1).all(axis=None)
        assert "density_drift" not in noise_of[name]


def test_the_weights_of_the_power_density_stay_below_two(noise_of: dict[str, pd.DataFrame]) -> None:
    metrics = noise_of["power"]
    assert (metrics["effective_sample_size"].between(0.5, 0.999)).all()
    assert (metrics["weight_max"] < 2).all()
    assert (metrics["weight_min"] < metrics["weight_max"]).all()


def test_the_stream_tells_the_masks_from_the_rest_with_several_views_only(
    noise_of: dict[str, pd.DataFrame],
) -> None:
    for name, metrics in noise_of.items():
        views = metrics["variance_between_views"]
        assert views.isna().all() if name != "mirror" else (views[1:] > 0).all()
        parts = metrics[["variance_between_rates", "variance_between_rows"]][1:]
        assert np.isfinite(parts).all(axis=None)


def test_rates_explain_less_of_exact_counts_than_of_independent_masks(
    noise_of: dict[str, pd.DataFrame],
) -> None:
    """The noise of the number of masked tokens is the greater part of Standard's."""
    rest = {name: metrics["variance_between_rows"].iloc[-1] for name, metrics in noise_of.items()}
    assert rest["count"] < 0.2 * rest["standard"]


def test_the_parts_are_the_same_in_either_normalisation_of_rows_of_one_length(
    folder: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    t, weight, losses = random.random(64), 0.5 + random.random(64), random.random((2, 64))
    columns = []
    for length in (1.0, 7.0):
        config = tiny_config(tmp_path, folder)
        stream = TrainingStream(config, RunDirectory(tmp_path), make_estimator(config.estimator))
        lengths = np.full(64, length)
        columns.append(stream.update(1, t, weight, losses * length, lengths))
    assert columns[0] == pytest.approx(columns[1], rel=1e-9)


def test_values_of_rows_are_put_at_their_slots() -> None:
    with process_group_of_one(gpu=False):
        values = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 1e-300]])
        gathered = gather_slots(values, np.array([4, 0, 2]), 5, torch.device("cpu"))
    np.testing.assert_array_equal(gathered, [[2, 0, 3, 0, 1], [5, 0, 1e-300, 0, 4]])
