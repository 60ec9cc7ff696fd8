"""A score: decoded at one fixed length, read up to the first EOS, alike for any batch size; of a
run's own rows, of raw rows by any model, or of responses made elsewhere.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from prepared import TASK, tiny_config, write_prepared
from typer.testing import CliRunner, Result

from raymdm.cli import app
from raymdm.config import Config
from raymdm.data.evaluation import read_items
from raymdm.data.manifest import read_manifest
from raymdm.errors import CheckpointError, DataError
from raymdm.evaluations.run import evaluate_run
from raymdm.evaluations.scoring import Scorer
from raymdm.evaluations.settings import fixed_decoding
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


@pytest.fixture(scope="module")
def raw_rows(trained: tuple[RunDirectory, Config]) -> Path:
    """The run's test rows as they were before `prepare`."""
    folder = Path(trained[1].data.folder)
    file = folder.parent / "raw.jsonl"
    with open(file, "w") as rows:
        for line in (folder / "test.jsonl").read_text().splitlines():
            reference = json.loads(json.loads(line)["reference"])
            rows.write(json.dumps({**reference, "expression": reference["question"]}) + "\n")
    return file


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def task_overrides() -> list[str]:
    return [
        part
        for name, value in TASK.items()
        for part in ("--set", f"task.{name}={json.dumps(value)}")
    ]


def final(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "scores.json").read_text())["final"]


def test_raw_rows_score_as_the_prepared_ones(
    trained: tuple[RunDirectory, Config], raw_rows: Path, tmp_path: Path
) -> None:
    run, config = trained
    prepared = evaluate_run(run, config)
    options = ["--rows", raw_rows, "--out", tmp_path / "scored"]
    result = evaluate(run.path, *options, *task_overrides())
    assert result.exit_code == 0, result.output
    items = pd.read_parquet(tmp_path / "scored" / "items.parquet")
    assert items["response"].tolist() == prepared.items["response"].tolist()
    np.testing.assert_allclose(items["nll"], prepared.items["nll"])
    assert final(tmp_path / "scored")["split"] == raw_rows.name
    assert final(tmp_path / "scored")["accuracy"] == prepared.summary["accuracy"]


def test_a_score_has_its_uncertainty_and_the_full_settings_of_its_sampler(
    trained: tuple[RunDirectory, Config],
) -> None:
    run, config = trained
    found = evaluate_run(run, config).summary
    low, high = found["accuracy_interval"]
    assert low < found["accuracy"] < high
    assert found["decoding"] == config.evaluation.decoding.model_dump()
    assert found["perplexity_bound"] == pytest.approx(np.exp(found["nelbo_per_token"]))


def test_traced_items_have_pages_and_say_who_was_right_and_went_wrong(
    trained: tuple[RunDirectory, Config], tmp_path: Path, raw_rows: Path
) -> None:
    run, _ = trained
    out = tmp_path / "traced"
    few = ["--set", "evaluation.limit=6", "--set", "evaluation.traces=4"]
    result = evaluate(run.path, "--rows", raw_rows, "--out", out, *task_overrides(), *few)
    assert result.exit_code == 0, result.output
    items = pd.read_parquet(out / "items.parquet")
    assert items["over_denoised"].notna().sum() == 4
    pages = sorted(path.name for path in (out / "traces").iterdir())
    assert pages == sorted(items["page_name"].dropna())
    assert all(page in (out / "report.html").read_text() for page in pages)
    untraced = evaluate(
        run.path, "--rows", raw_rows, "--out", tmp_path / "plain", *task_overrides(), *few[:2]
    )
    assert untraced.exit_code == 0
    plain = pd.read_parquet(tmp_path / "plain" / "items.parquet")
    assert plain["response"].tolist() == items["response"].tolist()
    assert final(out)["denoising"]["items"] == 4


def test_an_interrupted_evaluation_goes_on_where_it_stopped(
    trained: tuple[RunDirectory, Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, config = trained
    section = config.evaluation.model_copy(update={"batch_size": 10, "limit": 40, "step0": False})
    config = config.model_copy(update={"evaluation": section})
    whole = evaluate_run(run, config)
    score, calls = Scorer.score, []

    def interrupted(self: Scorer, items: list[Any]) -> list[dict[str, Any]]:
        calls.append(len(items))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(self, items)

    monkeypatch.setattr(Scorer, "score", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(run, config)
    again = evaluate_run(run, config)
    assert calls == [10] * 5  # two, the interrupted one, and the two that were left
    assert not list(run.path.glob("*.partial"))
    pd.testing.assert_frame_equal(again.items, whole.items)


def test_a_subject_is_found_from_any_folder(
    trained: tuple[RunDirectory, Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Actors work in folders of their own, and open what was named from the user's."""
    run, config = trained
    monkeypatch.chdir(run.path.parent)
    for name in (run.path.name, f"{run.path.name}/model"):
        subject = open_subject(name, config)
        monkeypatch.chdir("/")
        assert open_subject(subject.source, config).weights == subject.weights
        assert subject.load().shape == subject.shape
        monkeypatch.chdir(run.path.parent)


def test_responses_made_elsewhere_score_the_same(
    trained: tuple[RunDirectory, Config], raw_rows: Path, tmp_path: Path
) -> None:
    run, config = trained
    found = evaluate_run(run, config)
    theirs = tmp_path / "theirs.jsonl"
    rows = [{"response": text} for text in found.items["response"]]
    theirs.write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
    out = tmp_path / "scored"
    options = ["--predictions", theirs, "--gold", raw_rows, "--out", out]
    result = evaluate(*options, *task_overrides())
    assert result.exit_code == 0, result.output
    assert "1 gold without prediction" in result.output
    items = pd.read_parquet(out / "items.parquet")
    assert items["correct"].tolist() == found.items["correct"].tolist()[:-1]
    assert "nelbo_per_token" not in final(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give one of them"),
        (("{run}", "--predictions", "x.jsonl"), "give one of them"),
        (("{run}", "--rows", "missing.jsonl"), "file missing.jsonl not found"),
        (("{run}", "--rows", "generate", "--set", "task.name=gsm8k"), "makes no rows of its own"),
        (("{run}", "--out", "elsewhere"), "--out goes with --rows: say which rows"),
        (("nowhere/model", "--rows", "generate"), "nowhere/model"),
        (("--predictions", "missing.jsonl"), "missing.jsonl: cannot be read"),
        (("{run}", "--set", "evaluation.decoding.stepz=3"), "steps"),
        (("{run}", "--set", "evaluation.decoding.threshold=0.9", "--set",
          "evaluation.decoding.steps=3"), "steps must be null"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_one_line(
    trained: tuple[RunDirectory, Config], arguments: tuple[str, ...], message: str
) -> None:
    run, _ = trained
    result = evaluate(*(argument.format(run=run.path) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
