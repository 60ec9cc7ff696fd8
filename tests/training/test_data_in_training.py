"""A run on many files, under every shuffle: the same losses however it is cut or spread."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prepared import cut_at, losses_of, start_run, tiny_config, write_prepared

from raymdm.config import Config
from raymdm.data.indexing import INDEX, QUARANTINE
from raymdm.errors import DataError
from raymdm.training import run_in_process, run_trainer
from raymdm.training.job import Outcome


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder whose rows lie in three files of three kinds beside it, too."""
    made = write_prepared(tmp_path_factory.mktemp("data") / "prepared")
    lines = (made / "train.jsonl").read_bytes().splitlines(keepends=True)
    (made.parent / "a.jsonl").write_bytes(b"".join(lines[:30]))
    (made.parent / "b.jsonl.gz").write_bytes(gzip.compress(b"".join(lines[30:50])))
    rows = [json.loads(line) for line in lines[50:]]
    pq.write_table(pa.Table.from_pylist(rows), made.parent / "c.parquet", row_group_size=8)
    return made


def mixture(run_dir: Path, folder: Path, **sections: Any) -> Config:
    """Twelve steps on two sources, in windows of a few steps, over several epochs of both."""
    files = [str(folder.parent / name) for name in ("a.jsonl", "b.jsonl.gz", "c.parquet")]
    data = {
        "sources": [{"files": files[:2], "weight": 2}, {"files": files[2:], "weight": 1}],
        "shuffle": "window",
        "window_blocks": 2,
        "fragment_bytes": 500,
    }
    training = {"steps": 12, "checkpoint_every": 5}
    return tiny_config(run_dir, folder, data=data, training=training, **sections)


@pytest.fixture(scope="module")
def losses(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    job = start_run(mixture(tmp_path_factory.mktemp("runs") / "whole", folder))
    assert run_in_process(job) == Outcome("finished", 12)
    return losses_of(job)


def test_one_source_of_all_files_trains_as_the_prepared_folder_does(
    folder: Path, tmp_path: Path
) -> None:
    files = [str(folder.parent / name) for name in ("a.jsonl", "b.jsonl.gz", "c.parquet")]
    jobs = [
        start_run(tiny_config(tmp_path / name, folder, data=data))
        for name, data in (("own", {}), ("files", {"sources": [{"files": files}]}))
    ]
    for job in jobs:
        run_in_process(job)
    assert np.array_equal(losses_of(jobs[0]), losses_of(jobs[1]))


def test_a_mixture_cut_inside_a_window_resumes_to_the_same_losses(
    folder: Path, tmp_path: Path, losses: np.ndarray
) -> None:
    config = mixture(tmp_path / "cut", folder)
    job = start_run(config)
    assert job.order.until(4) == job.order.until(5), "step 5 is inside a window"
    cut_at(job, 7)
    job = start_run(config, resume=True)
    run_in_process(job)
    assert np.array_equal(losses_of(job), losses)
    epochs = pd.read_parquet(job.run.metrics)["epoch"]
    assert epochs.tolist() == [job.order.epoch(step) for step in range(12)]
    assert epochs.max() > 1


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_a_mixture_streamed_to_workers_has_the_same_losses(
    ray_cluster: None, folder: Path, tmp_path: Path, losses: np.ndarray, workers: int
) -> None:
    job = start_run(mixture(tmp_path / "run", folder, cluster={"workers": workers}))
    assert run_trainer(job) == Outcome("finished", 12)
    np.testing.assert_allclose(losses_of(job), losses, rtol=1e-6)


def with_bad_row(folder: Path, copy: Path) -> Path:
    """A copy of the prepared folder in which the fourth training row is broken."""
    write_prepared(copy)
    lines = (folder / "train.jsonl").read_bytes().splitlines(keepends=True)
    (copy / "train.jsonl").write_bytes(b"".join([*lines[:3], b"{broken\n", *lines[4:]]))
    return copy


def test_a_run_leaves_bad_rows_out_and_says_so_in_its_directory(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = with_bad_row(folder, tmp_path / "data")
    with pytest.raises(DataError, match="line 4: not valid JSON"):
        start_run(tiny_config(tmp_path / "run", broken))
    job = start_run(tiny_config(tmp_path / "run", broken, data={"bad_rows": "skip"}))
    assert (len(job.train), job.order.rows) == (79, 79)
    run_in_process(job)
    (row,) = map(json.loads, (job.run.path / QUARANTINE).read_text().splitlines())
    assert (row["file"], row["line"], row["text"]) == (str(broken / "train.jsonl"), 4, "{broken")
    assert "1 bad rows are left out" in capsys.readouterr().err


def test_a_run_whose_rows_changed_is_not_resumed(folder: Path, tmp_path: Path) -> None:
    copy = write_prepared(tmp_path / "data")
    config = tiny_config(tmp_path / "run", copy)
    run_in_process(start_run(config))
    lines = (copy / "train.jsonl").read_bytes().splitlines(keepends=True)
    (copy / "train.jsonl").write_bytes(b"".join(lines[::-1]))
    with pytest.raises(DataError, match="its rows are not what"):
        start_run(config, resume=True)
    (copy / "train.jsonl").write_bytes(b"".join(lines))
    start_run(config, resume=True)


def test_a_diverged_run_names_the_rows_of_its_files(folder: Path, tmp_path: Path) -> None:
    config = mixture(tmp_path / "run", folder)
    training = config.training.model_copy(
        update={"learning_rate": 1e30, "warmup_steps": 0, "gradient_clip": 0.0}
    )
    job = start_run(config.model_copy(update={"training": training}))
    outcome = run_in_process(job)
    assert outcome.state == "diverged"
    assert "(samples row-" in str(outcome.message)
    assert f"of {folder.parent / 'a.jsonl'} and 2 other files)" in str(outcome.message)


def test_the_index_is_written_when_the_run_begins(folder: Path, tmp_path: Path) -> None:
    job = start_run(tiny_config(tmp_path / "run", folder))
    assert not (job.run.path / INDEX).exists()
    run_in_process(job)
    content = json.loads((job.run.path / INDEX).read_text())
    assert content["files"][0][0]["path"] == str(folder / "train.jsonl")
