"""The verb as a user meets it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).parent / "verdict"))  # Where pytest finds it for its neighbours.
from synthetic_sweep import write_run, write_sweep

from raymdm.compare import compare_sweep, main

SCORES = {"standard": [0.50, 0.53, 0.54, 0.52], "ours": [0.62, 0.59, 0.61, 0.60]}


@pytest.fixture
def run():
    application = typer.Typer()
    application.command()(main)
    return lambda *arguments: CliRunner().invoke(application, [str(a) for a in arguments])


def test_a_sweep_gets_its_verdict_report_and_summary(run, tmp_path):
    result = run(write_sweep(tmp_path, SCORES))
    assert result.exit_code == 0, result.output
    assert "ours is better than standard on accuracy" in result.output
    shown = result.output.replace("\n", "")
    assert "spread between seeds" in result.output
    assert "the seeds of ours spread" in result.output
    for name in ("report.html", "report.md", "summary.json"):
        assert str(tmp_path / name) in shown
        assert (tmp_path / name).stat().st_size > 0
    assert not list(tmp_path.glob(".*")), "no half-written files stay behind"


def test_the_summary_holds_what_a_script_needs(tmp_path):
    content = compare_sweep(write_sweep(tmp_path, SCORES, margin=0.01), console=Console(quiet=True))
    assert json.loads((tmp_path / "summary.json").read_text()) == content
    assert content["baseline"] == "standard"
    assert content["primary_metric"] == "accuracy"
    assert content["margin"] == 0.01
    assert content["path"] == "process"
    assert content["metrics"]["accuracy"]["arms"]["ours"]["verdict"] == "better"
    assert content["metrics"]["nelbo"]["arms"]["ours"]["verdict"] == "better"
    assert len(content["sentences"]) == 2
    assert len(content["runs"]) == 8


def test_options_replace_what_the_sweep_declared(run, tmp_path):
    folder, output = write_sweep(tmp_path / "sweep", SCORES), tmp_path / "elsewhere"
    options = ("--baseline", "ours", "--metric", "nelbo", "--margin", "0.5", "--output", output)
    assert run(folder, *options).exit_code == 0
    content = json.loads((output / "summary.json").read_text())
    assert (content["baseline"], content["primary_metric"], content["margin"]) == (
        "ours",
        "nelbo",
        0.5,
    )
    assert content["metrics"]["nelbo"]["arms"]["standard"]["verdict"] == "worse"
    assert not (folder / "report.html").exists()


def test_run_directories_are_compared_by_the_arm_in_their_status(run, tmp_path):
    folders = [
        write_run(tmp_path / f"{arm}{seed}", score, arm=arm, seed=seed)
        for arm, column in SCORES.items()
        for seed, score in enumerate(column)
    ]
    result = run(*folders, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "ours is better than standard" in result.output


def test_a_table_can_name_its_column_and_its_better_side(run, tmp_path):
    file = tmp_path / "scores.csv"
    rows = [f"{arm},{seed},{score}" for arm, c in SCORES.items() for seed, score in enumerate(c)]
    file.write_text("\n".join(["arm,seed,loss", *rows]))
    result = run("--table", file, "--metric", "loss", "--lower-is-better", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert "ours is worse than standard on loss" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give one of"),
        (["{missing}"], "no such directory"),
        (["{empty}"], "has no sweep.json"),
        (["{sweep}", "--table", "x.csv"], "give one of"),
        (["--table", "{missing}"], "cannot be read (No such file or directory)"),
        (["{sweep}", "--baseline", "standrad"], "among the arms: standard, ours; did you mean 'st"),
        (["{sweep}", "--metric", "acuracy"], "found: accuracy, nelbo"),
        (["{sweep}", "--margin", "0"], "margin 0.0 is not a positive number"),
        (["{sweep}", "{sweep}"], "one sweep at a time"),
        (["{sweep}", "--lower-is-better"], "--lower-is-better is for --table"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_status_2(run, tmp_path, arguments, words):
    (tmp_path / "empty").mkdir()
    write_sweep(tmp_path / "sweep", SCORES)
    places = {name: tmp_path / name for name in ("missing", "empty", "sweep")}
    result = run(*(argument.format(**places) for argument in arguments))
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


def test_the_module_runs_as_a_program_without_ray_or_torch(tmp_path):
    folder = write_sweep(tmp_path, SCORES)
    code = (
        "import sys\n"
        f"sys.argv = ['compare', {str(folder)!r}]\n"
        "import runpy\n"
        "try:\n    runpy.run_module('raymdm.compare', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'ray', 'torch', 'deepspeed', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "ours is better than standard" in result.stdout


TABLE_1 = Path(__file__).parents[1] / "configs" / "tables" / "bringing_stability.csv"


@pytest.mark.parametrize(
    ("column", "p"), [("openscience", 0.006), ("gsm8k", 0.004), ("hitab", 0.094)]
)
def test_the_papers_table_1_is_a_worked_example(run, tmp_path, column, p):
    """Three seeds: what they show rests on normality, the permutation test cannot go below 0.10."""
    result = run("--table", TABLE_1, "--metric", column, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "summary.json").read_text())
    row = content["metrics"][column]["arms"]["P-POTS+MIRROR"]
    assert row["p_welch"] == pytest.approx(p, abs=0.0006)
    assert row["verdict"] == ("better" if p < 0.05 else "undecided")
    assert row["p_permutation"] >= row["p_floor"] == pytest.approx(0.10)
    assert row["rests_on_normality"]
    beside = row["beside"]
    assert beside["p_sign_flip"] == pytest.approx(0.25), "three pairs cannot go below"
    assert beside["bca_interval"] == [None, None], "not from three seeds"
    assert beside["variance_ratio_bounds"] == pytest.approx([1 / 39, 39])
    assert beside["sd_ratio_detectable"] > 12
    assert beside["coverage"]["variance_ratio"]["descriptive"]
    assert "3 against 3 seeds: variance ratios from 0.026 to 39 may be chance" in result.output


def test_the_short_verdict_comes_first_and_the_details_last(run, tmp_path):
    result = run("--table", TABLE_1, "--metric", "gsm8k", "--output", tmp_path)
    places = [
        result.output.index(words)
        for words in ("is better than Standard", "mean ± sd", "beside it", "simulated coverage")
    ]
    assert places == sorted(places)
