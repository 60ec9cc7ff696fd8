"""A score: decoded at one fixed length, read up to the first EOS, alike for any batch size."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prepared import tiny_config, write_prepared

from raymdm.config import Config
from raymdm.data.evaluation import read_items
from raymdm.data.manifest import read_manifest
from raymdm.errors import CheckpointError, DataError
from raymdm.evaluations.run import evaluate_run, fixed_decoding
from raymdm.evaluations.subject import open_subject
from raymdm.training import RunDirectory, run_in_process
from raymdm.training.job import make_job
from raymdm.verdict import read_runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, Config]:
    """Sums of two digits, trained on all of them long enough to know some answers."""
    home = tmp_path_factory.mktemp("evaluate")
    folder = write_prepared(home / "data", {"train": 100, "validation": 0, "test": 100})
    config = tiny_config(
        home / "run",
        folder,
        model={"hidden_size": 48, "layers": 2, "heads": 4, "initializer_std": 0.12},
        training={"steps": 500, "batch_size": 50, "learning_rate": 5e-3},
        evaluation={"decoding": {"response_length": 3}, "nelbo": {"draws": 4}},
    )
    job = make_job(config, RunDirectory(config.run_dir))
    run = RunDirectory.open(config, job.manifest.fingerprint, resume=False)
    run_in_process(job)
    return run, config


def test_training_raises_the_score_and_lowers_the_nelbo(
    trained: tuple[RunDirectory, Config],
) -> None:
    run, config = trained
    found = evaluate_run(run, config)
    start, final = found.start, found.summary
    assert start is not None
    assert start["accuracy"] < 0.05
    assert final["accuracy"] > 0.3
    assert final["nelbo_per_token"] < 0.5 * start["nelbo_per_token"]
    assert final["decoding"]["response_length"] == 3
    assert final["nelbo_standard_error"] == 0.0  # short responses are exact
    items = pd.read_parquet(run.items)
    assert items["correct"].mean() == final["accuracy"]
    tokens = items["tokens"].sum()
    assert items["nll"].sum() / tokens == pytest.approx(final["nelbo_per_token"])


def test_the_batch_size_does_not_change_an_item(trained: tuple[RunDirectory, Config]) -> None:
    run, config = trained
    tables = []
    for size in (1, 7, 100):
        section = config.evaluation.model_copy(update={"batch_size": size, "limit": 30})
        evaluate_run(run, config.model_copy(update={"evaluation": section}))
        tables.append(pd.read_parquet(run.items))
    for table in tables[1:]:
        assert table["response"].tolist() == tables[0]["response"].tolist()
        np.testing.assert_allclose(table["nll"], tables[0]["nll"], rtol=1e-5)


def test_a_run_can_be_read_by_compare(trained: tuple[RunDirectory, Config]) -> None:
    run, config = trained
    evaluate_run(run, config)
    runs = read_runs([run.path]).runs
    assert runs["accuracy"].notna().all()


def test_text_after_the_first_eos_is_dropped(trained: tuple[RunDirectory, Config]) -> None:
    run, config = trained
    subject = open_subject(str(run.path), config)
    ids = subject.encoder.tokenizer("12 34")["input_ids"]
    eos = subject.shape.eos_token_id
    assert subject.text([*ids[:2], eos, *ids[2:]]) == "12"
    assert subject.text(ids) == "12 34"
    assert subject.text([eos, *ids]) == ""


def test_the_default_decoding_length_comes_from_the_training_responses(
    trained: tuple[RunDirectory, Config],
) -> None:
    _, config = trained
    manifest = read_manifest(config.data.folder)
    free = config.evaluation.decoding.model_copy(update={"response_length": None})
    section = config.evaluation.model_copy(update={"decoding": free})
    fixed = fixed_decoding(config.model_copy(update={"evaluation": section}), manifest)
    assert fixed.evaluation.decoding.response_length == 3


def test_rows_that_cannot_be_scored_are_refused(trained: tuple[RunDirectory, Config]) -> None:
    _, config = trained
    folder = Path(config.data.folder)
    with pytest.raises(DataError, match=r"row 1 has no 'reference'"):
        read_items(folder, read_manifest(folder), "train", None)
    with pytest.raises(DataError, match="has no rows"):
        read_items(folder, read_manifest(folder), "validation", None)


def test_a_run_without_a_model_is_refused(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "data")
    config = tiny_config(tmp_path / "run", folder)
    run = RunDirectory.open(config, "data", resume=False)
    with pytest.raises(CheckpointError, match="has no model/"):
        evaluate_run(run, config)
