"""The measurements measure what they say. No timing is asserted here."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from raymdm import cli
from raymdm.benchmarks.alternation import TOLERANCE, alternate
from raymdm.benchmarks.bare_loop import BareLoop, Batch
from raymdm.benchmarks.sweep import TrialTimes, measure_sweep, split_by_process, training_seconds
from raymdm.benchmarks.train import Plan, measure_training
from raymdm.config import Config
from raymdm.config.loading import validate
from raymdm.errors import RunError

TINY = Plan(blocks=3, steps=2, warm_up=2, vocabulary_size=64, length=24, prompt_length=6)


def _config(**estimator: object) -> Config:
    return validate(
        {
            "model": {"hidden_size": 16, "layers": 1, "heads": 2},
            "training": {"batch_size": 8, "warmup_steps": 3, "weight_decay": 0.1},
            "estimator": estimator,
        }
    )


IMPORTANCE = {
    "time": {"sampler": "importance"},
    "density": {"probe": {"rates": 16, "rows": 8, "masks": 2}, "fit_starts": 2},
}


@pytest.mark.parametrize(
    "estimator",
    [
        pytest.param({}, id="standard"),
        pytest.param({"normalize": "token"}, id="token"),
        pytest.param({"masker": {"kind": "mirror", "views": 2}}, id="mirror"),
        pytest.param(IMPORTANCE, id="importance", marks=pytest.mark.slow),
    ],
)
def test_both_loops_train_the_same_model(tmp_path: Path, estimator: dict[str, object]) -> None:
    """Over several steps: weights, optimiser, clipping and learning rate agree too."""
    figures = measure_training(_config(**estimator), tmp_path, TINY)
    assert figures.loss_difference < TOLERANCE["fp32"]
    assert figures.steps == 6
    assert figures.quartiles[0] <= figures.ratio <= figures.quartiles[1]
    assert figures.ours > 0
    assert figures.bare > 0


def test_no_ratio_of_loops_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = BareLoop.step

    def lazy(self: BareLoop, batch: Batch) -> float:
        return 0.999 * step(self, batch)

    monkeypatch.setattr(BareLoop, "step", lazy)
    with pytest.raises(RunError, match="do not do the same work and no ratio is given"):
        measure_training(_config(), tmp_path, TINY)


def test_loops_take_turns_at_going_first() -> None:
    calls: list[str] = []

    def loop(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    sides = [lambda: loop("o"), lambda: loop("b"), lambda: loop("c")]
    losses, seconds = alternate(sides, blocks=2, steps=2, warm_up=1)
    assert "".join(calls) == "obc" + "oobbcc" + "bbccoo"
    assert losses.tolist() == [[1, 4, 5, 14, 15], [2, 6, 7, 10, 11], [3, 8, 9, 12, 13]]
    assert seconds.shape == (3, 2)


def test_the_verb_prints_a_ratio_and_writes_json(tmp_path: Path) -> None:
    arguments = ["bench", "train", "--blocks", "2", "--json", str(tmp_path / "figures.json")]
    small = ["model.hidden_size=16", "model.layers=1", "model.heads=2", "training.batch_size=4"]
    sets = [part for key in small for part in ("--set", key)]
    result = CliRunner().invoke(cli.app, [*arguments, *sets])
    assert result.exit_code == 0, result.output
    assert "raymdm worker" in result.output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["name"] == "train"
    assert figures["steps"] == 4
    assert f"{figures['ratio']:.3f}" in result.output


def test_an_unknown_measurement_is_refused() -> None:
    result = CliRunner().invoke(cli.app, ["bench", "everything"])
    assert result.exit_code == 2


def test_training_seconds_leave_out_waiting_and_validation() -> None:
    metrics = pd.DataFrame(
        {
            "seconds": [30.0, 31.0, 32.0, 39.0, 41.0],
            "validation_nelbo": [np.nan, np.nan, np.nan, 2.5, np.nan],
        }
    )
    # Steps of 1, 1 and 2 seconds; the first and the validated one count as the median of 1.
    assert training_seconds(metrics) == 6.0


def test_trials_are_told_apart_by_process() -> None:
    """Two processes with two trials each, from second 100 on; a third one starts late."""
    times = [
        TrialTimes(began=110, ended=130, training=15, evaluation=1),
        TrialTimes(began=111, ended=135, training=20, evaluation=1),
        TrialTimes(began=132, ended=150, training=15, evaluation=1),
        TrialTimes(began=136, ended=160, training=20, evaluation=1),
        TrialTimes(began=140, ended=170, training=20, evaluation=1),
    ]
    first, later = split_by_process(times, started=100)
    assert first == [15, 15, 50]
    assert later == [5, 5]


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_is_accounted_for(ray_cluster: None, tmp_path: Path) -> None:
    from raymdm.config import load_config

    sizes = ["model.hidden_size=16", "model.layers=1", "model.heads=2", "training.steps=5"]
    few = ["training.batch_size=16", "prepare.train_rows=100", "prepare.test_rows=20"]
    design = ["sweep.arms.standard={}", "sweep.seeds=[0,1,2]"]
    place = [f"run_dir={tmp_path / 'sweep'}", f"data.folder={tmp_path / 'data'}"]
    figures = measure_sweep(load_config(["tasks/addition"], [*sizes, *few, *design, *place]))
    assert (figures.path, figures.trials, figures.concurrency) == ("process", 3, 2)
    whole = figures.trials * (figures.training + figures.overhead)
    assert whole == pytest.approx(figures.wall * figures.concurrency)
    assert figures.share == pytest.approx(figures.training * 3 / (figures.wall * 2))
    assert 0 < figures.evaluation < figures.overhead
    assert figures.later < figures.first
