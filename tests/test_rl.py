"""The verb of reinforcement learning: what it refuses in one line, and the list that it writes."""

import json
from pathlib import Path

import pytest
from prepared import start_run, tiny_config, write_prepared
from typer.testing import CliRunner

from raymdm.cli import app
from raymdm.training import run_in_process

RUN = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared", references=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["rl", "-c", "base"], "has no section policy"),
        (["rl", "-c", "rl/mdpo", "--set", "policy.los=mdpo"], "did you mean 'policy.loss'?"),
        (["rl", "-c", "rl/mdpo", "--set", "data.folder=nowhere"], "run `raymdm prepare`"),
        (["rl", "filter"], "needs a model and --out FILE"),
        (["rl", "filter", "model"], "needs a model and --out FILE"),
        (["rl", "train", "model"], "go with `raymdm rl filter`"),
        (["train", "-c", "rl/mdpo"], "run `raymdm rl` with it"),
        (
            ["rl", "-c", "rl/mdpo", "--set", "deepspeed.zero_stage=3"],
            "give a number of actors, or stage 2",
        ),
        (
            ["rl", "-c", "rl/mdpo", "--set", "policy.incremental_training=true"],
            "give training.steps",
        ),
        (
            ["rl", "-c", "rl/mdpo", "--set", "cluster.workers=3"],
            "policy.prompts_per_step 4 is not a multiple of cluster.workers 3",
        ),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(options: list[str], message: str) -> None:
    done = RUN.invoke(app, options)
    assert done.exit_code == 2, done.output
    (line,) = [line for line in done.output.splitlines() if line.strip()]
    assert line.startswith("error: ")
    assert message in line


def test_the_filter_writes_a_list_that_training_reads(folder: Path, tmp_path: Path) -> None:
    job = start_run(tiny_config(tmp_path / "run", folder, training={"steps": 60}))
    run_in_process(job)
    out = tmp_path / "list.jsonl"
    done = RUN.invoke(app, ["rl", "filter", str(job.run.path), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "of 80 prompts over-denoise" in done.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert all(1 <= row["first_right"] < row["steps"] for row in rows)
    settings = json.loads((tmp_path / "list.jsonl.settings.json").read_text())
    assert settings["about"]["prompts"] == 80
    assert settings["about"]["over_denoised"] == len(rows)
