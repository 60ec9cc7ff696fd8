"""An exported run: loads by its path with the run's logits, says what it is, appears only whole."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from prepared import tiny_config, write_prepared
from safetensors.torch import load_file
from typer.testing import CliRunner

from raymdm.cli import app
from raymdm.config import Config
from raymdm.evaluations.run import evaluate_run
from raymdm.models import load_model
from raymdm.training import RunDirectory, run_in_process
from raymdm.training.job import make_job


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, Config]:
    """Adapters on a tiny model, evaluated."""
    home = tmp_path_factory.mktemp("export")
    folder = write_prepared(home / "data")
    model = {"hidden_size": 16, "layers": 1, "heads": 2, "lora": {"rank": 2}}
    config = tiny_config(home / "run", folder, model=model)
    job = make_job(config, RunDirectory(config.run_dir))
    run = RunDirectory.open(config, job.manifest.fingerprint, resume=False)
    run_in_process(job)
    return run, config


def export(run: RunDirectory, target: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", str(run.path), str(target), *options])
    return result.exit_code, result.output


def test_it_loads_again_with_the_logits_of_the_run(
    trained: tuple[RunDirectory, Config], tmp_path: Path
):
    run, _ = trained
    assert export(run, tmp_path / "model")[0] == 0
    ids = torch.arange(8)[None]
    assert torch.equal(load_model(tmp_path / "model")(ids), load_model(run.model)(ids))
    names = set(load_file(tmp_path / "model" / "model.safetensors"))
    assert not [name for name in names if "lora" in name]


def test_another_run_can_start_from_it(trained: tuple[RunDirectory, Config], tmp_path: Path):
    run, config = trained
    export(run, tmp_path / "model")
    again = tiny_config(
        tmp_path / "run", Path(config.data.folder), model={"init_from": str(tmp_path / "model")}
    )
    assert make_job(again, RunDirectory(again.run_dir)).shape == load_model(run.model).shape


def test_the_folder_is_complete(trained: tuple[RunDirectory, Config], tmp_path: Path):
    run, _ = trained
    export(run, tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names >= {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    defaults = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert (defaults["max_new_tokens"], defaults["steps"]) == (3, 3)
    upstream = json.loads((tmp_path / "model" / "config.json").read_text())["auto_map"]
    assert upstream["AutoModel"].endswith("--modeling_llada.LLaDAModelLM")


def test_the_card_says_what_was_trained_and_what_it_scored(
    trained: tuple[RunDirectory, Config], tmp_path: Path
):
    run, config = trained
    export(run, tmp_path / "before")
    before = (tmp_path / "before" / "README.md").read_text()
    assert "Not evaluated" in before
    scores = evaluate_run(run, config).summary
    export(run, tmp_path / "after")
    card = (tmp_path / "after" / "README.md").read_text()
    assert f"| {scores['items']} | {scores['accuracy']:.1%}" in card
    assert "adapters of rank 2" in card
    header = yaml.safe_load(card.split("---")[1])
    assert "masked-diffusion" in header["tags"]
    assert header["model-index"][0]["results"][0]["metrics"][0]["value"] == scores["accuracy"]
    block = re.search(r"```yaml\n(.*)```", card, re.DOTALL)
    assert block is not None
    shown = yaml.safe_load(block[1])
    assert shown["model"]["lora"]["rank"] == 2
    assert str(tmp_path.parent) not in card  # no paths of this machine


def test_weights_can_be_written_in_half_precision(
    trained: tuple[RunDirectory, Config], tmp_path: Path
):
    run, _ = trained
    export(run, tmp_path / "model", "--precision", "bf16")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["torch_dtype"] == "bfloat16"


def test_what_is_there_is_not_overwritten(trained: tuple[RunDirectory, Config], tmp_path: Path):
    run, _ = trained
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "precious").write_text("x")
    status, output = export(run, tmp_path / "model")
    assert status == 2
    assert "is there already" in output
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_run_without_a_model_is_refused(tmp_path: Path):
    folder = write_prepared(tmp_path / "data")
    config = tiny_config(tmp_path / "run", folder)
    job = make_job(config, RunDirectory(config.run_dir))
    run = RunDirectory.open(config, job.manifest.fingerprint, resume=False)
    status, output = export(run, tmp_path / "model")
    assert status == 2
    assert "has no model/" in output


def test_a_folder_that_cannot_be_written_is_named(
    trained: tuple[RunDirectory, Config], tmp_path: Path
):
    (tmp_path / "file").write_text("")
    status, output = export(trained[0], tmp_path / "file" / "model")
    assert status == 2
    assert "file/model" in output.replace("\n", "")
