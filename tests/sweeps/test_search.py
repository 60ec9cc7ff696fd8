"""Settings are chosen by the mean over seeds of their own, then confirmed on fresh ones."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from prepared import tiny_config, write_prepared

from raymdm.config import Config
from raymdm.errors import CheckpointError, ConfigurationError, DataError, RunError
from raymdm.sweep import sweep
from raymdm.sweeps import make_design
from raymdm.sweeps.candidate import rung_steps, train_until
from raymdm.sweeps.checks import check_folder
from raymdm.sweeps.design import make_candidate
from raymdm.sweeps.search import CandidateSearch
from raymdm.sweeps.search_record import SearchRecord
from raymdm.training import RunDirectory
from raymdm.verdict import read_sweep
from raymdm.verdict.candidates import Candidate

AXIS = "training.learning_rate"
RATES = [1e-4, 1e-2, 1e30]


def _config(run_dir: Path, folder: Path, **sections: Any) -> Config:
    search = {
        "axes": {AXIS: {"choice": RATES}},
        "seeds": [100, 101],
        "halving": {"rungs": 2, "factor": 3},
        **sections.pop("search", {}),
    }
    design = {
        "arms": {"standard": {}, "mirror": {"configs": ["estimators/mirror"]}},
        "seeds": [0, 1],
        "search": search,
        **sections.pop("sweep", {}),
    }
    return tiny_config(
        run_dir,
        folder,
        sweep=design,
        training={"steps": 9, "schedule": "constant", "warmup_steps": 0},
        compare={"metric": "nelbo"},
        **sections,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared")


@pytest.fixture(scope="module")
def searched(
    ray_cluster: None, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Config, Path]:
    home = tmp_path_factory.mktemp("search")
    config = _config(home / "runs", folder)
    sweep(config)
    return config, home / "runs"


def _record(home: Path) -> dict[str, Any]:
    return json.loads((home / "search.json").read_text())


@pytest.mark.ray
def test_every_arm_gets_the_candidate_of_the_best_mean(searched: tuple[Config, Path]) -> None:
    config, home = searched
    record = SearchRecord(config, home)
    for arm, chosen in record.best().items():
        complete = [each for each in record.of(arm) if each.state == "complete"]
        assert chosen.score == min(each.score for each in complete)
        assert chosen.score == sum(chosen.scores) / 2
        trial = yaml_config(home / "trials" / f"{arm}-seed0")
        assert trial["training"]["learning_rate"] == chosen.settings[AXIS] == 1e-2


@pytest.mark.ray
def test_a_candidate_that_diverged_is_never_chosen(searched: tuple[Config, Path]) -> None:
    _, home = searched
    states = {
        (each["arm"], each["settings"][AXIS]): each["state"] for each in _record(home)["candidates"]
    }
    assert len(states) == 6
    assert {states[arm, 1e30] for arm in ("standard", "mirror")} == {"diverged"}


@pytest.mark.ray
def test_the_verdict_has_fresh_seeds_and_no_settings(searched: tuple[Config, Path]) -> None:
    _, home = searched
    results = read_sweep(home)
    assert set(results.runs["seed"]) == {0, 1}
    assert results.settings == [""]
    assert set(results.runs["state"]) == {"finished"}


@pytest.mark.ray
def test_the_same_command_again_tries_nothing_twice(searched: tuple[Config, Path]) -> None:
    config, home = searched
    before = {path: path.stat().st_mtime_ns for path in home.rglob("metrics.parquet")}
    record = _record(home)
    sweep(config)
    assert before == {path: path.stat().st_mtime_ns for path in home.rglob("metrics.parquet")}
    assert _record(home) == record


@pytest.mark.ray
def test_a_candidate_lost_on_the_way_is_tried_again(searched: tuple[Config, Path]) -> None:
    """As after a kill: the record says running, the runs are there up to a rung."""
    config, home = searched
    record = SearchRecord(config, home)
    scores = {each.name: each.scores for each in record.candidates}
    lost = next(each for each in record.candidates if each.state == "complete")
    lost.state, lost.scores, lost.steps = "running", [], 0
    record.save()
    sweep(config)
    assert {each.name: each.scores for each in SearchRecord(config, home).candidates} == scores


@pytest.mark.ray
def test_another_search_in_the_same_folder_is_refused(searched: tuple[Config, Path]) -> None:
    _, home = searched
    with pytest.raises(CheckpointError, match=r"began with seeds \[100, 101\], here it is \[7\]"):
        check_folder(_config(home, Path("data"), search={"seeds": [7]}))


def yaml_config(run: Path) -> dict[str, Any]:
    return RunDirectory(run).read_config()


def test_rungs_are_the_last_shares_of_the_steps() -> None:
    assert rung_steps(900, 3, 3) == [100, 300, 900]
    assert rung_steps(10, 3, 3) == [2, 4, 10]


def test_a_run_that_pauses_at_a_rung_is_the_run_that_did_not(folder: Path, tmp_path: Path) -> None:
    settings = {AXIS: 1e-2}
    runs = {}
    for name, rungs in (("paused", (3, 9)), ("whole", (9,))):
        config = _config(tmp_path / name, folder)
        trial = make_candidate(config, "standard", 0, settings)[0]
        scores = [train_until(trial, "process", steps) for steps in rungs]
        runs[name] = pd.read_parquet(RunDirectory(trial.config.run_dir).metrics)
        assert all(map(math.isfinite, scores))
    assert runs["paused"]["loss"].tolist() == runs["whole"]["loss"].tolist()
    measured = [frame["validation_nelbo"].iloc[-1] for frame in runs.values()]
    assert measured[0] == measured[1]
    assert math.isfinite(runs["paused"]["validation_nelbo"].iloc[2])


def test_without_validation_rows_nothing_can_be_chosen(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "data", {"train": 80, "test": 10})
    trial = make_candidate(_config(tmp_path / "runs", folder), "standard", 0, {AXIS: 1e-2})[0]
    with pytest.raises(DataError, match=r"no validation rows, by which sweep.search chooses"):
        train_until(trial, "process", 3)


def test_candidates_take_turns_among_the_arms(tmp_path: Path) -> None:
    config = _config(tmp_path / "runs", Path("data"))
    searcher, _ = _searcher(config, tmp_path)
    asked = [searcher.suggest(str(number)) for number in range(7)]
    assert asked[-1] == "FINISHED"
    assert [each["arm"] for each in asked[:-1]] == ["standard", "mirror"] * 3
    rates = [each["runs"][0].config.training.learning_rate for each in asked[:-1:2]]
    assert rates == RATES


def test_a_finished_candidate_only_repeats_its_rungs_to_the_scheduler(tmp_path: Path) -> None:
    """ASHA holds later candidates against them; what is on record does not change."""
    config = _config(tmp_path / "runs", Path("data"))
    record = SearchRecord(config, tmp_path)
    record.candidates = [
        Candidate("standard", 0, {AXIS: 1e-4}, "stopped", 3, [2.0, 3.0]),
        Candidate("standard", 1, {AXIS: 1e-2}, "complete", 9, [1.0, 1.0]),
        Candidate("standard", 2, {AXIS: 1e30}, "diverged", 3, [math.inf, 1.0]),
    ]
    record.save()
    searcher, ended = _searcher(config, tmp_path)
    first, second = searcher.suggest("a"), searcher.suggest("b")
    assert (first["number"], first["stopped_at"]) == (0, 3)
    assert (second["number"], second["stopped_at"]) == (1, None)
    searcher.on_trial_complete("b", {"steps": 3, "scores": [5.0, 5.0], "complete": False})
    assert searcher.record.candidates[1].state == "complete"
    assert not ended
    assert searcher.suggest("c")["arm"] == "mirror"


def test_a_candidate_is_scored_by_its_mean_and_a_mistake_is_told(tmp_path: Path) -> None:
    config = _config(tmp_path / "runs", Path("data"))
    searcher, ended = _searcher(config, tmp_path)
    for trial in "abc":
        searcher.suggest(trial)
    searcher.on_trial_complete("a", {"steps": 9, "scores": [1.0, 3.0], "complete": True})
    searcher.on_trial_complete("b", {"failed": "DataError: gone"})
    searcher.on_trial_complete("c", None, error=True)
    assert [each.state for each in ended] == ["complete", "failed", "failed"]
    assert ended[0].score == 2.0
    assert ended[1].message == "DataError: gone"
    again = SearchRecord(config, tmp_path)
    assert [each.state for each in again.candidates] == ["complete", "failed", "failed"]


def test_an_arm_whose_candidates_all_diverged_is_said_so(tmp_path: Path) -> None:
    record = SearchRecord(_config(tmp_path / "runs", Path("data")), tmp_path)
    record.candidates = [Candidate("standard", 0, {AXIS: 1.0}, "diverged", 3, [math.inf])]
    with pytest.raises(RunError, match="no candidate of arm 'standard' was trained to its end"):
        record.best()


def _searcher(config: Config, folder: Path) -> tuple[CandidateSearch, list[Candidate]]:
    from raymdm.sweeps.proposals import make_proposals

    assert config.sweep.search is not None
    ended: list[Candidate] = []
    proposals = {arm: make_proposals(config.sweep.search, arm) for arm in config.sweep.arms}
    record = SearchRecord(config, folder)

    def runs(candidate: Candidate) -> list:
        return make_candidate(config, candidate.arm, candidate.number, candidate.settings)

    return CandidateSearch(record, proposals, runs, ended.append), ended


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"sweep": {"seeds": [0, 100]}}, "sweep.search.seeds and sweep.seeds share 100"),
        ({"sweep": {"axes": {AXIS: {"choice": [1]}}}}, "give sweep.axes .* or sweep.search"),
        ({"sweep": {"vary": ["mask"]}}, "sweep.vary is given, so the runs are about variance"),
        ({"sweep": {"until": "decided"}}, "sweep.until decided needs compare.margin"),
    ],
)
def test_a_design_that_would_mislead_is_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_design(_config(Path("runs"), Path("data"), **sections))


def test_a_question_of_spread_takes_every_run_to_its_end() -> None:
    config = _config(Path("runs"), Path("data"))
    spread = config.compare.model_copy(update={"question": "spread", "margin": 0.1})
    with pytest.raises(ConfigurationError, match=r"spread, so .*halving would stop runs early"):
        make_design(config.model_copy(update={"compare": spread}))
    free = config.sweep.model_copy(update={"search": None, "until": "decided"})
    with pytest.raises(ConfigurationError, match="question spread needs all seeds"):
        make_design(config.model_copy(update={"compare": spread, "sweep": free}))
