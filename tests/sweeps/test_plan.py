"""The plan of a sweep: what it costs, what it can show, and that it trains nothing."""

import io
from math import inf
from pathlib import Path
from typing import Any

import pytest
from prepared import start_run, tiny_config, write_prepared
from rich.console import Console
from typer.testing import CliRunner

from raymdm.cli import app
from raymdm.config import Config, dump_yaml
from raymdm.diffusion.passes import FORWARD_SHARE
from raymdm.errors import ConfigurationError
from raymdm.sweep import plan_sweep
from raymdm.sweeps import make_design
from raymdm.sweeps.calibration import seconds_per_step
from raymdm.sweeps.plan import Plan
from raymdm.sweeps.plan_table import duration, print_plan
from raymdm.training import RunDirectory, run_in_process
from raymdm.training.run_directory import write_json
from raymdm.verdict.power import reach
from raymdm.verdict.spread_power import detectable_sd_ratio

PROBE = {"rates": 8, "rows": 4, "masks": 1}
ARMS = {
    "standard": {"configs": ["estimators/standard"]},
    "ppots_mirror": {
        "configs": ["estimators/ppots_mirror"],
        "overlay": {"estimator": {"density": {"probe": PROBE}}},
    },
    "standard_2x_batch": {"times": {"batch_size": 2}},
}
TOKENS = 9  # of every row that `write_prepared` counts
RATE = 1000.0
ROW = TOKENS / RATE
"""Seconds of a row's forward and backward at that rate."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared")


def _config(run_dir: Path, folder: Path, **sections: Any) -> Config:
    design = {"arms": ARMS, "seeds": [0, 1, 2, 3], "concurrency": 2, **sections.pop("sweep", {})}
    return tiny_config(run_dir, folder, sweep=design, **sections)


def _shown(plan: Plan, width: int = 80) -> str:
    text = io.StringIO()
    print_plan(plan, Console(file=text, width=width))
    return text.getvalue()


def test_passes_times_and_trials_are_those_of_the_design(folder: Path, tmp_path: Path) -> None:
    plan = plan_sweep(_config(tmp_path / "runs", folder), rate=RATE)
    standard, mirror, twice = plan.arms
    assert [arm.trials for arm in plan.arms] == [4, 4, 4]
    assert standard.forwards == (6 * 16, 6 * 16)
    assert mirror.probe_forwards == 8 * 4 * 1 * 2
    assert mirror.forwards == (6 * 16 * 2 + 64, 6 * 16 * 2 + 64)
    assert twice.forwards == (6 * 32, 6 * 32)
    assert standard.step_seconds == pytest.approx(16 * ROW)
    assert standard.seconds == pytest.approx(4 * 6 * 16 * ROW)
    assert mirror.seconds == pytest.approx(4 * (6 * 32 + FORWARD_SHARE * 64) * ROW)
    assert plan.seconds == pytest.approx(sum(arm.seconds for arm in plan.arms) / 2)


def test_one_trial_takes_no_less_however_many_run_at_once(folder: Path, tmp_path: Path) -> None:
    config = _config(tmp_path / "runs", folder, sweep={"concurrency": 100})
    plan = plan_sweep(config, rate=RATE)
    assert plan.seconds == pytest.approx(plan.arms[1].seconds / 4)


def test_finished_trials_cost_nothing_and_give_the_standard_deviation(
    folder: Path, tmp_path: Path
) -> None:
    config = _config(tmp_path / "runs", folder)
    trials = make_design(config)
    records = []
    for trial, accuracy in zip(trials[::3], (0.2, 0.4), strict=False):
        run = start_run(trial.config).run
        run.write_status(state="finished")
        final = {"accuracy": accuracy, "nelbo_per_token": 1.0}
        write_json(run.scores, {"step0": None, "final": final})
        record = {"trial": trial.name, "arm": trial.arm, "seed": trial.seed, "state": "finished"}
        records.append({**record, "settings": {}, "run_dir": f"trials/{trial.name}"})
    question = {"baseline": "standard", "metric": "accuracy", "margin": None}
    content = {**question, "arms": list(ARMS), "seeds": [0, 1, 2, 3], "trials": records}
    write_json(tmp_path / "runs" / "sweep.json", content)
    plan = plan_sweep(config, rate=RATE)
    assert [arm.to_run for arm in plan.arms] == [2, 4, 4]
    assert plan.sd == pytest.approx(0.2 / 2**0.5)
    assert "of 2 finished runs of standard" in " ".join(_shown(plan).split())
    assert plan_sweep(config, rate=RATE, sd=0.5).sd == 0.5


def test_the_plan_says_what_the_design_can_show(folder: Path, tmp_path: Path) -> None:
    config = _config(tmp_path / "runs", folder, sweep={"vary": ["mask", "time"]})
    plan = plan_sweep(config, rate=RATE, sd=0.1)
    seen = reach(seeds=4, comparisons=2)
    text = " ".join(_shown(plan).split())
    assert f"from {seen.difference:.2f} sd between seeds" in text
    assert f"({0.1 * seen.difference:.2g} in accuracy at an sd of 0.1, as given)" in text
    assert plan.sd_ratio == detectable_sd_ratio(4, 4, 2) == inf
    assert "and no ratio of sds, whatever it is" in text
    more = _config(tmp_path / "runs", folder, sweep={"seeds": list(range(24))})
    plan = plan_sweep(more, rate=RATE)
    assert plan.sd_ratio < 3
    assert f"ratios of sds from {plan.sd_ratio:.2g} (Brown" in " ".join(_shown(plan).split())
    assert "rest on normality" in text  # 2 / 70 twice is above 0.05
    assert "the seeds vary mask, time only" in text


def test_the_table_fits_a_terminal_of_eighty_columns(folder: Path, tmp_path: Path) -> None:
    long = {**ARMS, "standard_2x_steps": {"times": {"steps": 2}}}
    config = _config(tmp_path / "runs", folder, sweep={"arms": long}, training={"steps": 20_000})
    lines = _shown(plan_sweep(config, rate=RATE)).splitlines()
    assert max(map(len, lines)) <= 80
    table = "\n".join(lines)
    assert all(word in table for word in [*long, "320,000", "640,000", "2.00 ×", "3.2 h"])
    assert "…" not in table


def test_measured_steps_are_real_and_leave_nothing_behind(folder: Path, tmp_path: Path) -> None:
    config = _config(tmp_path / "runs", folder)
    plan = plan_sweep(config, steps=2)
    for arm in plan.arms:
        assert 0 < arm.step_seconds < 60
        assert arm.tokens_per_second > 0
    assert plan.measured == 2
    assert not (tmp_path / "runs").exists()


def test_measuring_trains_the_arms_own_steps_without_its_probe(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raymdm.sweeps import calibration

    seen: list[tuple[int, int]] = []
    step = calibration.Worker.step

    def counted(self: Any, rows: Any) -> Any:
        seen.append((len(rows.samples), self.estimator.law.views))
        assert (
            not self.job.run.density.exists() or self.job.config.estimator.density.kind == "power"
        )
        return step(self, rows)

    monkeypatch.setattr(calibration.Worker, "step", counted)
    trials = make_design(_config(tmp_path / "runs", folder))
    seconds_per_step(trials[1].config, 3)
    assert seen == [(16, 2)] * 4  # the first one warms up


def test_disk_follows_what_is_kept(folder: Path, tmp_path: Path) -> None:
    def disk(keep: str, **training: int) -> float:
        config = _config(tmp_path / "runs", folder, sweep={"keep": keep}, training=training)
        return plan_sweep(config, rate=RATE).arms[0].disk / 4

    config = tiny_config(tmp_path / "one", folder, keep="last")
    run_in_process(start_run(config))
    run = RunDirectory(config.run_dir)
    written = sum(
        file.stat().st_size
        for part in (run.model, run.checkpoints)
        for file in part.rglob("*")
        if file.is_file() and "tokenizer" not in file.name
    )
    assert disk("last") == pytest.approx(written, rel=0.25)
    assert disk("metrics") < 0.05 * disk("last") < disk("all", checkpoint_every=2)
    assert disk("all", checkpoint_every=2) > 2 * disk("last", checkpoint_every=2)
    assert disk("last", checkpoint_every=4) == disk("last")


def test_a_test_that_cannot_reach_significance_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="a baseline and at least one other arm"):
        plan_sweep(_config(tmp_path, folder, sweep={"arms": {"alone": {}}}), rate=RATE)
    file = tmp_path / "sweep.yaml"
    file.write_text(dump_yaml(_config(tmp_path / "runs", folder, sweep={"seeds": [1]})))
    done = CliRunner().invoke(app, ["sweep", "-c", str(file), "--plan", "--rate", "10"])
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert "1 seed per arm: no test can reach p < 0.05" in line
    assert not (tmp_path / "runs").exists()


def test_the_verb_prints_the_plan_and_trains_nothing(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(dump_yaml(_config(tmp_path / "runs", folder)))
    done = CliRunner().invoke(app, ["sweep", "-c", str(file), "--plan", "--rate", "1000"])
    assert done.exit_code == 0, done.output
    assert "12 trials (3 arms x 4 seeds), 12 to run" in done.stdout
    assert not (tmp_path / "runs").exists()
    wrong = CliRunner().invoke(app, ["sweep", "-c", str(file), "--rate", "1000"])
    assert wrong.exit_code == 2
    assert "--rate and --sd belong to --plan" in wrong.stderr


def test_durations_are_in_units_that_people_read() -> None:
    shown = [duration(s) for s in (25, 89, 14 * 60, 3.4 * 3600, 123 * 3600)]
    assert shown == ["25 s", "89 s", "14 min", "3.4 h", "123 h"]
