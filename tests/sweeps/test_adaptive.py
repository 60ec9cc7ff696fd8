"""Seeds are added to all arms alike until the question is decided."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from prepared import tiny_config, write_prepared

from raymdm.config import Config
from raymdm.errors import CheckpointError, ConfigurationError
from raymdm.sweep import sweep
from raymdm.sweeps import make_design
from raymdm.sweeps.adaptive import decide, first_seeds, sequential_design
from raymdm.sweeps.calibration import kept_calibration
from raymdm.sweeps.checks import check_folder
from raymdm.sweeps.manifest import write_manifest
from raymdm.verdict import read_sweep, summarise


def _config(run_dir: Path, folder: Path, margin: float = 1e6, **sweep_keys: Any) -> Config:
    design = {
        "arms": {"standard": {}, "mirror": {"configs": ["estimators/mirror"]}},
        "seeds": [0, 1, 2, 3, 4, 5],
        "until": "decided",
        "looks": {"every": 3},
        **sweep_keys,
    }
    return tiny_config(run_dir, folder, sweep=design, compare={"metric": "nelbo", "margin": margin})


@pytest.mark.ray
def test_a_sweep_stops_at_the_look_that_decides(ray_cluster: None, tmp_path: Path) -> None:
    """No difference can reach this margin, so the first look says equivalent."""
    config = _config(tmp_path / "runs", write_prepared(tmp_path / "data"), equalise="seconds")
    sweep(config)
    content = json.loads((tmp_path / "runs" / "sweep.json").read_text())
    assert content["seeds"] == [0, 1, 2]
    assert content["until"]["seeds"] == [0, 1, 2, 3, 4, 5]
    assert len(content["trials"]) == 6
    summary = json.loads((tmp_path / "runs" / "summary.json").read_text())
    arm = summary["metrics"]["nelbo"]["arms"]["mirror"]
    assert (arm["verdict"], arm["look"]["look"]) == ("equivalent", 1)
    # Its speed was measured once, for all seeds and calls.
    seconds = kept_calibration(tmp_path / "runs")
    assert seconds is not None
    assert set(seconds) == {"standard", "mirror"}
    planned = {t.name: t.config for t in make_design(config, seconds_per_pass=seconds)}
    for trial in content["trials"]:
        steps = planned[trial["trial"]].training.steps
        assert (
            len(pd.read_parquet(tmp_path / "runs" / trial["run_dir"] / "metrics.parquet")) == steps
        )
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("metrics.parquet")}
    sweep(config)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("metrics.parquet")}


def test_looks_are_fixed_before_the_first_one(tmp_path: Path) -> None:
    config = _config(tmp_path, Path("data"), margin=0.5)
    write_manifest(config, first_seeds(make_design(config), (0, 1, 2)), tmp_path, "process")
    check_folder(config)
    for change in ({"looks": {"every": 2}}, {"seeds": list(range(9))}, {"until": "all"}):
        with pytest.raises(CheckpointError, match=r"declared until .* start another sweep"):
            check_folder(_config(tmp_path, Path("data"), margin=0.5, **change))


def test_seeds_go_on_while_an_arm_is_open_and_every_arm_gets_them(tmp_path: Path) -> None:
    config = _config(tmp_path, Path("data"), margin=0.2)
    design = sequential_design(config)
    assert design is not None
    assert design.looks == (3, 6)
    trials = make_design(config)
    _finish(config, first_seeds(trials, (0, 1, 2)), tmp_path)
    decision = decide(design, tmp_path)
    assert decision.goes_on
    assert len(first_seeds(trials, decision.seeds)) == 12
    _finish(config, trials, tmp_path)
    assert not decide(design, tmp_path).goes_on
    notes = summarise(read_sweep(tmp_path)).notes
    assert any("seeds were added until the verdict on nelbo was decided" in text for text in notes)
    assert not any("runs were added after others had ended" in text for text in notes)


def _finish(config: Config, trials: list, folder: Path) -> None:
    """Trials as if they had run: a NELBO that seeds and arms change a little."""
    for trial in trials:
        run = Path(trial.config.run_dir)
        run.mkdir(parents=True, exist_ok=True)
        score = 1 + 0.1 * (trial.arm == "mirror") + 0.09 * ((trial.seed * 7) % 5 - 2)
        final = {"nelbo_per_token": score, "accuracy": 0.5}
        (run / "scores.json").write_text(json.dumps({"final": final, "step0": None}))
        (run / "status.json").write_text(json.dumps({"state": "finished", "attempts": 1}))
    write_manifest(config, trials, folder, "process")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"seeds": [0, 1]}, "at least 3 different seeds"),
        ({"arms": {"alone": {}}}, "a baseline and another arm"),
        ({"axes": {"training.learning_rate": {"choice": [1e-3]}}}, "sweep.until decided asks one"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        sequential_design(_config(Path("runs"), Path("data"), **keys))
