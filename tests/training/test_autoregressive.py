"""The autoregressive baseline from training to score, beside a masked run on the same rows."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from prepared import tiny_config, write_prepared

from raymdm.config import Config
from raymdm.config.loading import read_file
from raymdm.data.collate import collate
from raymdm.data.evaluation import read_items
from raymdm.data.manifest import read_manifest
from raymdm.diffusion.likelihood import autoregressive_nll
from raymdm.errors import CheckpointError, ConfigurationError
from raymdm.evaluations.run import evaluate_run
from raymdm.models import load_model
from raymdm.sweeps.checks import check_arms
from raymdm.sweeps.design import make_design
from raymdm.training import RunDirectory, run_in_process
from raymdm.training.job import make_job
from raymdm.verdict import read_runs

Trained = Callable[[str], tuple[RunDirectory, Config]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("autoregressive")
    write_prepared(home / "data")
    return home


@pytest.fixture(scope="module")
def trained(home: Path) -> Trained:
    """A few steps under a preset, scored."""
    done: dict[str, tuple[RunDirectory, Config]] = {}

    def train(preset: str) -> tuple[RunDirectory, Config]:
        if preset not in done:
            config = tiny_config(
                home / preset,
                home / "data",
                estimator=read_file(f"estimators/{preset}")["estimator"],
                model={"initializer_std": 0.1},
                training={"steps": 25},
            )
            job = make_job(config, RunDirectory(config.run_dir))
            run = RunDirectory.open(config, job.manifest.fingerprint, resume=False)
            run_in_process(job)
            evaluate_run(run, config)
            done[preset] = run, config
        return done[preset]

    return train


def exact_nats_per_token(run: RunDirectory, config: Config, split: str) -> float:
    """From the saved weights and the rows, without the trainer or the evaluation."""
    manifest = read_manifest(config.data.folder)
    items = read_items(Path(config.data.folder), manifest, split, None)
    rows = collate(
        [item.input_ids for item in items],
        [len(item.prompt) for item in items],
        range(len(items)),
        pad_token_id=manifest.pad_token_id,
        eos_token_id=manifest.eos_token_id,
    )
    result = autoregressive_nll(load_model(run.model), rows)
    return result.per_row.sum() / result.tokens.sum()


def test_a_causal_model_learns_and_its_scores_say_what_they_are(trained: Trained):
    run, config = trained("arm")
    scores = pd.read_json(run.scores, typ="series")
    final, start = scores["final"], scores["step0"]
    assert load_model(run.model).shape.causal
    assert final["nelbo_per_token"] < start["nelbo_per_token"] - 0.5
    assert final["nelbo_per_token"] == pytest.approx(exact_nats_per_token(run, config, "test"))
    for score in (final, start):
        assert (score["bound"], score["sampler"]) == ("exact_likelihood", "left_to_right")
        assert score["nelbo_standard_error"] == 0


def test_validation_during_training_is_the_exact_likelihood(trained: Trained):
    run, config = trained("arm")
    measured = pd.read_parquet(run.path / "metrics.parquet")["validation_nelbo"].iloc[-1]
    assert measured == pytest.approx(exact_nats_per_token(run, config, "validation"), rel=1e-5)


def test_causal_and_masked_runs_can_be_compared(trained: Trained):
    """The baseline is there to be compared with: its other sampler is no other setting."""
    runs = [trained(preset)[0] for preset in ("arm", "standard")]
    assert read_runs([run.path for run in runs]).runs["nelbo"].notna().all()
    masked = pd.read_json(runs[1].scores, typ="series")["final"]
    assert (masked["bound"], masked["sampler"]) == ("nelbo", "masked")


@pytest.mark.parametrize(
    ("start", "objective", "remedy"),
    [("arm", "masked", "autoregressive"), ("standard", "autoregressive", "masked")],
)
def test_starting_from_a_model_of_the_other_kind_is_refused(
    trained: Trained, home: Path, start: str, objective: str, remedy: str
):
    folder = str(trained(start)[0].model)
    for kind in (objective, remedy):
        config = tiny_config(
            home / "next", home / "data", model={"init_from": folder}, estimator={"objective": kind}
        )
        if kind == remedy:
            assert make_job(config, RunDirectory(config.run_dir)).shape.causal == (start == "arm")
            continue
        with pytest.raises(CheckpointError, match=f"set estimator.objective to {remedy}"):
            make_job(config, RunDirectory(config.run_dir))


@pytest.mark.parametrize("arms", [["standard"], ["standard", "arm"]])
def test_decoding_that_means_nothing_for_an_arm_is_refused_before_training(
    home: Path, arms: list[str]
):
    config = tiny_config(
        home / "sweep",
        home / "data",
        evaluation={"decoding": {"response_length": 4, "steps": 2}},
        sweep={"arms": {arm: {"configs": [f"estimators/{arm}"]} for arm in arms}, "seeds": [0]},
    )
    trials = make_design(config)
    if arms == ["standard"]:
        check_arms(trials)
        return
    with pytest.raises(ConfigurationError, match=r"decoding\.steps means nothing"):
        check_arms(trials)
