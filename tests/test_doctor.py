"""The verb looks at the machine, or says what a configuration needs: a report, with status 0."""

import json
import re
from pathlib import Path

import pytest
from prepared import write_prepared
from typer.testing import CliRunner

from raymdm import cli

RUN = CliRunner()
LLADA = ["-c", "models/llada-8b", "--vocabulary", "126464", "--set", "prepare.max_length=4096"]


def doctor(*arguments: str) -> str:
    done = RUN.invoke(cli.app, ["doctor", *arguments])
    assert done.exit_code == 0, done.output
    return re.sub(r"\s+", " ", done.output)


def test_without_a_configuration_it_describes_the_machine(tmp_path: Path) -> None:
    text = doctor("--json", str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    for package in ("raymdm", "torch", "ray", "deepspeed", "transformers", "peft"):
        assert f"{package} {found['machine']['packages'][package]}" in text
    assert "CPUs" in text
    assert "Ray cluster" in text
    assert "raymdm needs none of them" in text
    states = {"installed", "can be compiled", "cannot be compiled"}
    assert set(found["operations"].values()) <= states
    assert "Memory of one worker" not in text


def test_an_8b_model_on_hardware_that_is_not_here(tmp_path: Path) -> None:
    """The figures of the paper's model: 8.02B parameters, 16 bytes each in fp32 and more."""
    text = doctor(*LLADA, "--device-memory", "80", "--json", str(tmp_path / "found.json"))
    assert "8,015,581,184 parameters" in text
    assert "It does not fit: a worker needs" in text
    assert "has 80.0 GiB" in text
    found = json.loads((tmp_path / "found.json").read_text())
    update = found["device"]["update"]
    assert update["weights"] == update["gradients"] == 4 * 8_015_581_184
    assert update["optimizer"] == 8 * 8_015_581_184
    assert found["verdict"] == "too large"
    assert found["alternatives"]["bf16, LoRA rank 16"]["least"] < 40 * 2**30


def test_what_saves_memory_makes_it_fit() -> None:
    lean = ["precision=bf16", "micro_batch_size=1", "activation_checkpointing=true"]
    sets = [part for key in lean for part in ("--set", f"training.{key}")]
    text = doctor(*LLADA, *sets, "--set", "model.lora.rank=16", "--device-memory", "40")
    assert "bf16, ZeRO 0, LoRA rank 16, activation checkpointing, 1 worker" in text
    assert "It fits: a worker needs" in text


def test_prepared_data_gives_lengths_and_vocabulary(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "prepared")
    text = doctor("--set", f"data.folder={folder}", "--set", "training.batch_size=16")
    assert "16 × 1 × 9 tokens" in text
    assert "48 are predicted" in text
    assert "It fits" in text


def test_without_data_the_assumption_is_stated() -> None:
    text = doctor("--set", "data.folder=nowhere", "--set", "prepare.max_length=100")
    assert "32 × 1 × 100 tokens" in text
    assert "assumed: prepare.max_length, all of it response" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "training.stepz=3"], "unknown key 'training.stepz'"),
        (
            ["--set", "model.init_from=nowhere/at-all"],
            "no such folder, and the hub did not give it",
        ),
        (["--set", "deepspeed.offload=optimizer"], "needs deepspeed.zero_stage 1"),
        (["--check", *LLADA], "which needs about"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(options: list[str], message: str) -> None:
    done = RUN.invoke(cli.app, ["doctor", *options])
    assert done.exit_code == 2, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert line.startswith("error: ")
    assert message in line


def test_the_estimate_is_what_two_real_steps_take(tmp_path: Path) -> None:
    """Of 8M parameters, within a fifth."""
    sizes = ["hidden_size=256", "layers=8", "heads=8", "intermediate_size=704"]
    keys = [*(f"model.{size}" for size in sizes), "prepare.max_length=64", "training.batch_size=8"]
    sets = [part for key in keys for part in ("--set", key)]
    text = doctor(*sets, "--vocabulary", "4096", "--check", "--json", str(tmp_path / "found.json"))
    check = json.loads((tmp_path / "found.json").read_text())["check"]
    ratio = check["estimated"] / check["measured"]
    assert 0.8 < ratio < 1.2
    assert f"{ratio:.2f}" in text
    assert "that the process held before" in text
