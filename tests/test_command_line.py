"""The command line teaches, dumps its configuration, and answers bad input in one line."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prepared import write_prepared
from typer.testing import CliRunner

from raymdm.cli import VERBS, app

RUN = CliRunner()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared")


def test_the_verbs_are_listed_without_importing_torch_or_ray() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from raymdm.cli import app;"
        "print(CliRunner().invoke(app, ['--help']).output);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'ray', 'deepspeed')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # runpy's: the module is imported already
@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help_in_both_forms(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert RUN.invoke(app, [verb, "--help"]).exit_code == 0
    # As `python -m` does it, without eleven processes that import torch and Ray.
    monkeypatch.setattr(sys, "argv", [f"raymdm.{verb}", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"raymdm.{verb}", run_name="__main__")
    assert ended.value.code == 0
    assert "Usage:" in capsys.readouterr().out


def test_dump_config_is_complete_and_reads_back(tmp_path: Path) -> None:
    options = ["-c", "base", "-c", "estimators/mirror", "--set", "training.steps=7"]
    first = RUN.invoke(app, ["train", *options, "--dump-config"])
    assert first.exit_code == 0
    content = yaml.safe_load(first.stdout)
    assert content["training"]["steps"] == 7
    assert content["estimator"]["masker"]["kind"] == "mirror"
    (tmp_path / "dumped.yaml").write_text(first.stdout)
    second = RUN.invoke(app, ["train", "-c", str(tmp_path / "dumped.yaml"), "--dump-config"])
    assert second.stdout == first.stdout


def _train(folder: Path, run_dir: Path, *options: str) -> list[str]:
    settings = {
        "data.folder": folder,
        "run_dir": run_dir,
        "training.steps": 4,
        "training.batch_size": 16,
        "model.hidden_size": 16,
        "model.layers": 1,
        "model.heads": 2,
        "cluster.address": "local",
    }
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return ["train", *given, *options]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "training.stepz=3"], "unknown key 'training.stepz'; did you mean"),
        (["--set", "training.steps=many"], "training.steps: Input should be a valid integer"),
        (["--set", "training.steps"], "expected key=value"),
        (["-c", "estimators/miror"], "did you mean 'estimators/mirror'?"),
        (["-c", "no/such/file.yaml"], "not found here or in"),
        (["--import", "no_such_module"], "--import no_such_module: ModuleNotFoundError"),
        (["--set", "data.folder=nowhere"], "run `raymdm prepare`"),
        (["--set", "model.init_from=nowhere"], "nowhere"),
        (["--set", "training.batch_size=500"], "80 training rows do not fill one global batch"),
        (["--set", "cluster.workers=3"], "is not a multiple of cluster.workers 3"),
        (["--set", "estimator.density.file=x", "--set", "estimator.time.sampler=magic"], "sampler"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    folder: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    done = RUN.invoke(app, _train(folder, tmp_path / "run", *options))
    assert done.exit_code == 2, done.output
    lines = [line for line in done.output.splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not (tmp_path / "run").exists()


def test_a_broken_data_file_is_named_with_its_line(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "data")
    with open(folder / "train.jsonl", "a") as file:
        file.write('{"input_ids": [1, 2\n')
    done = RUN.invoke(app, _train(folder, tmp_path / "run"))
    assert done.exit_code == 2
    assert f"{folder / 'train.jsonl'}, line 81: not valid JSON" in done.output


@pytest.mark.ray
def test_more_workers_than_the_cluster_has_are_refused_at_once(
    ray_cluster: None, folder: Path, tmp_path: Path
) -> None:
    done = RUN.invoke(app, _train(folder, tmp_path / "run", "--set", "cluster.workers=8"))
    assert done.exit_code == 2
    assert "8 workers of 0.5 CPUs and 0 GPUs" in done.output
    assert "it has 2 CPUs" in done.output
    assert not (tmp_path / "run").exists()


def test_other_verbs_refuse_folders_that_are_not_theirs(tmp_path: Path) -> None:
    for options, message in (
        (["evaluate", str(tmp_path)], "is no run directory"),
        (["sweep", "--set", f"run_dir={tmp_path}"], "needs sweep.arms and sweep.seeds"),
    ):
        done = RUN.invoke(app, options)
        assert done.exit_code == 2
        assert message in done.output


@pytest.mark.ray
def test_a_diverged_run_exits_with_1_and_names_the_step(
    ray_cluster: None, folder: Path, tmp_path: Path
) -> None:
    options = [
        *("--set", "training.learning_rate=1e30"),
        *("--set", "training.schedule=constant"),
    ]
    done = RUN.invoke(app, _train(folder, tmp_path / "run", *options))
    assert done.exit_code == 1
    assert "diverged at step" in done.output
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "diverged"
