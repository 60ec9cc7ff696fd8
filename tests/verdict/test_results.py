import json

import pytest
from synthetic_sweep import STEPS, write_run, write_sweep

from raymdm.errors import DataError
from raymdm.verdict import read_runs, read_sweep, summarise
from raymdm.verdict.score_table import read_table


def test_every_planned_run_is_a_row_whatever_became_of_it(tmp_path):
    scores = {"standard": [0.5, 0.6, None], "ours": ["diverged", "interrupted", 0.7]}
    results = read_sweep(write_sweep(tmp_path, scores))
    states = {(run.arm, run.seed): run.state for run in results.runs.itertuples()}
    assert states == {
        ("standard", 0): "finished",
        ("standard", 1): "finished",
        ("standard", 2): "missing",
        ("ours", 0): "diverged",
        ("ours", 1): "interrupted",
        ("ours", 2): "finished",
    }
    verdict = summarise(results).comparisons[0].verdict
    assert verdict["standard"].n_failed == 1
    assert (verdict["ours"].n, verdict["ours"].n_diverged, verdict["ours"].n_failed) == (2, 1, 1)


def test_the_scores_are_accuracy_and_nelbo_per_token(tmp_path):
    results = read_sweep(write_sweep(tmp_path, {"a": [0.5], "b": [0.75]}))
    assert results.runs["accuracy"].tolist() == [0.5, 0.75]
    assert results.runs["nelbo"].tolist() == [1.0, 0.75]
    assert results.runs["step0_accuracy"].tolist() == [0.01, 0.01]
    assert [(m.name, m.higher_is_better) for m in results.metrics] == [
        ("accuracy", True),
        ("nelbo", False),
    ]


def test_a_trial_still_pending_for_the_sweep_but_done_on_disk_counts_as_done(tmp_path):
    write_sweep(tmp_path, {"a": [0.5], "b": [0.6]})
    design = json.loads((tmp_path / "sweep.json").read_text())
    design["trials"][1]["state"] = "running"
    (tmp_path / "sweep.json").write_text(json.dumps(design))
    assert read_sweep(tmp_path).runs["state"].tolist() == ["finished", "finished"]


def test_a_finished_run_without_its_scores_is_failed_and_says_so(tmp_path):
    write_sweep(tmp_path, {"a": [0.5], "b": [0.6]})
    (tmp_path / "runs" / "0-b-0" / "scores.json").unlink()
    run = read_sweep(tmp_path).runs.iloc[1]
    assert (run["state"], run["message"]) == ("failed", "no scores.json")


def test_a_metric_that_no_run_measured_is_left_out(tmp_path):
    folders = [write_run(tmp_path / name, None, nelbo=0.5) for name in "ab"]
    results = read_runs(folders)
    assert [metric.name for metric in results.metrics] == ["nelbo"]
    assert results.primary == "nelbo"


def test_a_run_directory_names_its_arm_and_seed_or_lends_its_folders_name(tmp_path):
    told = write_run(tmp_path / "one", 0.5, arm="ours", seed=7)
    untold = write_run(tmp_path / "two", 0.6)
    runs = read_runs([told, untold]).runs
    assert list(zip(runs["arm"], runs["seed"], strict=True)) == [("ours", 7), ("two", 5)]


def test_each_hyperparameter_setting_is_judged_by_itself(tmp_path):
    settings = ({"training.learning_rate": 0.001}, {"training.learning_rate": 0.01})
    scores = {"a": [0.50, 0.51], "b": [0.60, 0.61]}
    summary = summarise(read_sweep(write_sweep(tmp_path, scores, settings)))
    labels = ["training.learning_rate=0.001", "training.learning_rate=0.01"]
    assert list(summary.to_dict()["metrics"]["accuracy"]) == labels
    assert all(comparison.verdict["b"].n == 2 for comparison in summary.comparisons)
    assert summary.sentences[0].startswith(f"[{labels[0]}] ")


def test_the_curves_are_read_when_asked_for(tmp_path):
    results = read_sweep(write_sweep(tmp_path, {"a": [0.5], "b": ["diverged"]}))
    lengths = results.curves.groupby("arm")["step"].max()
    assert lengths.to_dict() == {"a": STEPS, "b": STEPS // 4}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "found a list"),
        ("{}", "not as `raymdm sweep` writes it"),
        ('{"arms": [], "seeds": [], "baseline": "a", "trials": []}', "plans no runs"),
    ],
)
def test_a_broken_sweep_json_is_the_users_error(tmp_path, content, words):
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(DataError, match=words):
        read_sweep(tmp_path)


def test_a_table_of_scores_is_read_with_items_averaged(tmp_path):
    file = tmp_path / "scores.csv"
    file.write_text("arm,seed,item,score\na,0,x,1\na,0,y,0\nb,0,x,1\nb,0,y,1\n")
    runs = read_table(file).runs
    assert dict(zip(runs["arm"], runs["score"], strict=True)) == {"a": 0.5, "b": 1.0}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("arm,score\na,1\n", "no column 'seed'; the header has arm, score"),
        ("arm,seed,score\na,0,1\na,1,high\n", "line 3: score 'high' is not a number"),
        ("arm,seed,score\na,0,1\n\na,0,2\n", "line 4: arm a, seed 0 appears a second time"),
        ("arm,seed,score,state\na,0,1,fine\n", "line 2: unknown state 'fine'"),
        ("arm,seed,score\n", "no rows below the header"),
    ],
)
def test_a_broken_table_is_named_with_its_line(tmp_path, text, words):
    file = tmp_path / "scores.csv"
    file.write_text(text)
    with pytest.raises(DataError, match=words):
        read_table(file)
