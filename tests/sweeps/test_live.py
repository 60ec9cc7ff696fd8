"""What a sweep shows while it runs, drawn from run directories written by hand."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from raymdm.config import Config
from raymdm.sweeps import Trial
from raymdm.sweeps.board import Board
from raymdm.sweeps.live import draw, watch_trials
from raymdm.training import RunDirectory
from raymdm.training.run_directory import write_json

RUNNING = {"state": "running", "step": 120, "steps": 200, "loss": 1.234, "seconds_left": 42.0}


def _trial(folder: Path, arm: str, seed: int, **settings: Any) -> Trial:
    tail = "".join(f"-{value}" for value in settings.values())
    name = f"{arm}{tail}-seed{seed}"
    config = Config().model_copy(update={"run_dir": str(folder / name)})
    return Trial(name, arm, seed, {f"training.{k}": v for k, v in settings.items()}, config)


def _write(trial: Trial, final: dict[str, float | None] | None = None, **status: Any) -> None:
    run = RunDirectory(trial.config.run_dir)
    run.path.mkdir(exist_ok=True)
    run.write_status(**status)
    if final is not None:
        write_json(run.scores, {"step0": None, "final": final})


def _finish(trial: Trial, accuracy: float | None = 0.625, nelbo: float = 0.71234) -> None:
    _write(trial, {"accuracy": accuracy, "nelbo_per_token": nelbo}, state="finished")


def _grid(folder: Path, arms: Sequence[str], seeds: int) -> dict[tuple[str, int], Trial]:
    return {(arm, seed): _trial(folder, arm, seed) for arm in arms for seed in range(seeds)}


def _drawn(board: Board, width: int = 100, height: int = 40, metric: str = "accuracy") -> str:
    text = io.StringIO()
    console = Console(file=text, width=width, height=height)
    board.look()
    console.print(draw("trials", board, metric, console))
    return text.getvalue()


def _row(text: str, name: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(f" {name}")).split()


def test_every_trial_shows_its_state_and_what_is_known_of_it(tmp_path: Path) -> None:
    trials = _grid(tmp_path, ("standard", "ours"), 4)
    board = Board(trials.values())
    _finish(trials["standard", 0])
    _write(trials["standard", 1], **RUNNING)
    _write(trials["standard", 2], state="diverged", message="loss is nan at step 7")
    _write(trials["standard", 3], state="failed", message="RuntimeError: no")
    _write(trials["ours", 0], state="running", step=0, steps=200, loss=None)
    _write(trials["ours", 1], state="finished")  # trained, and its scores are not there yet
    text = _drawn(board)
    assert _row(text, "standard") == ["standard", "62.5%", "120/200", "diverged", "failed"]
    assert "1.234 42 s" in text
    assert _row(text, "ours") == ["ours", "starting", "scoring", "waiting", "waiting"]
    assert "2 of 8 ended, 3 running, 2 waiting, 1 failed" in text


def test_finished_trials_show_the_metric_that_decides(tmp_path: Path) -> None:
    trials = _grid(tmp_path, ("standard",), 2)
    _finish(trials["standard", 0], accuracy=None)
    board = Board(trials.values())
    assert _row(_drawn(board, metric="nelbo"), "standard") == ["standard", "0.7123", "waiting"]
    # A task without answers to score has no accuracy.
    assert _row(_drawn(board), "standard") == ["standard", "finished", "waiting"]


def test_what_an_earlier_call_left_behind_waits_until_somebody_works_on_it(tmp_path: Path) -> None:
    trials = _grid(tmp_path, ("standard",), 3)
    _write(trials["standard", 0], **RUNNING)
    _write(trials["standard", 1], state="failed", message="lost")
    _finish(trials["standard", 2])
    board = Board(trials.values())
    assert _row(_drawn(board), "standard") == ["standard", "waiting", "waiting", "62.5%"]
    _write(trials["standard", 0], step=121)
    assert _row(_drawn(board), "standard")[1] == "121/200"


def test_an_ended_trial_is_not_read_again(tmp_path: Path) -> None:
    trials = _grid(tmp_path, ("standard",), 2)
    _finish(trials["standard", 0])
    board = Board(trials.values())
    _finish(trials["standard", 0], accuracy=0.1)
    assert _row(_drawn(board), "standard")[1] == "62.5%"


@pytest.mark.parametrize("width", [60, 80])
def test_a_wide_design_is_counted_by_arm_in_a_narrow_terminal(tmp_path: Path, width: int) -> None:
    trials = _grid(tmp_path, ("standard", "ppots_mirror"), 12)
    board = Board(trials.values())
    for seed, accuracy in enumerate((0.5, 0.6)):
        _finish(trials["ppots_mirror", seed], accuracy)
    _write(trials["standard", 5], **RUNNING)
    text = _drawn(board, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "seed 11" not in text
    assert "standard-seed5  120/200  1.234 42 s" in text
    assert _row(text, "arm") == ["arm", "finished", "running", "waiting", "mean", "accuracy"]
    assert _row(text, "ppots_mirror") == ["ppots_mirror", "2", "10", "55.0%"]
    assert _row(text, "standard ") == ["standard", "1", "11"]
    assert "seed 11" in _drawn(board, width=200)


def test_a_table_higher_than_the_terminal_is_counted_too(tmp_path: Path) -> None:
    trials = _grid(tmp_path, [f"arm{number}" for number in range(15)], 1)
    board = Board(trials.values())
    for trial in trials.values():
        _write(trial, **RUNNING)
    assert "seed 0" in _drawn(board, height=50).split("ended")[1].splitlines()[2]
    low = _drawn(board, height=24)
    assert "mean accuracy" in low
    assert "and 7 more running" in low


def test_an_arm_with_several_settings_has_a_row_for_each(tmp_path: Path) -> None:
    trials = [_trial(tmp_path, "ours", 0, learning_rate=rate) for rate in (0.1, 0.2)]
    trials.append(_trial(tmp_path, "plain", 0, learning_rate=0.1))
    text = _drawn(Board(trials))
    shown = "".join(line.split("  ")[0].strip() for line in text.splitlines()[4:])
    assert "ours(training.learning_rate=0.1)" in shown.replace(" ", "")
    assert "ours(training.learning_rate=0.2)" in shown.replace(" ", "")
    assert _row(text, "plain")[0] == "plain"


def test_trials_that_join_are_drawn_and_counted(tmp_path: Path) -> None:
    trials = list(_grid(tmp_path, ("standard",), 3).values())
    board = Board(trials[:1])
    board.add(trials)
    text = _drawn(board)
    assert "0 of 3 ended" in text
    assert "seed 2" in text


@pytest.fixture
def clocked(tmp_path: Path) -> tuple[Board, list[Trial], Callable[[float], None]]:
    """A board of six trials, and a way to set its clock and let it look."""
    trials = list(_grid(tmp_path, ("standard",), 6).values())
    now = [0.0]
    board = Board(trials, clock=lambda: now[0])

    def at(second: float) -> None:
        now[0] = second
        board.look()

    return board, trials, at


Clocked = tuple[Board, list[Trial], Callable[[float], None]]


def test_time_left_follows_from_the_trials_that_finished_in_this_call(clocked: Clocked) -> None:
    board, trials, at = clocked
    _finish(trials[5])  # by an earlier call: says nothing about how long one takes
    at(0)
    assert board.seconds_left() is None
    for trial in trials[:2]:
        _write(trial, state="running", step=1, steps=9)
    at(10)
    for trial in trials[:2]:
        _finish(trial)
    at(110)
    # Three wait, a hundred seconds each, two at once.
    assert board.seconds_left() == pytest.approx(150)
    _write(trials[2], state="running", step=1, steps=9)
    _write(trials[3], state="running", step=1, steps=9)
    at(120)
    at(180)
    # Both have 40 seconds to go, and one of a hundred waits.
    assert board.seconds_left() == pytest.approx((2 * 40 + 100) / 2 + 10)
    for trial in trials[2:5]:
        _finish(trial)
    at(220)
    assert board.seconds_left() == 0


def test_before_any_finished_running_trials_say_how_long_one_takes(clocked: Clocked) -> None:
    board, trials, at = clocked
    _write(trials[0], **{**RUNNING, "seconds_left": None})
    at(0)
    assert board.seconds_left() is None
    _write(trials[0], **{**RUNNING, "seconds_left": 30.0})
    at(20)
    assert board.seconds_left() == pytest.approx(5 * 50 + 30)
    assert "about 5 min left" in _drawn(board)


def test_a_diverged_trial_does_not_shorten_what_the_others_take(clocked: Clocked) -> None:
    board, trials, at = clocked
    for trial in trials[:2]:
        _write(trial, state="running", step=1, steps=9)
    at(0)
    _write(trials[0], state="diverged", message="nan")
    at(1)
    _finish(trials[1])
    at(60)
    assert board.seconds_left() == pytest.approx(4 * 60 / 2)


def test_a_log_file_gets_a_line_for_each_trial_that_ends(tmp_path: Path) -> None:
    trials = list(_grid(tmp_path, ("standard",), 4).values())
    _finish(trials[0])
    text = io.StringIO()
    with watch_trials("trials", trials[:3], "accuracy", Console(file=text, width=40)) as ended:
        _finish(trials[1])
        ended(trials[1])
        ended.add(trials)
        _write(trials[2], state="diverged", message="loss is nan at step 7, [see] the log")
        ended(trials[2])
        _write(trials[3], state="failed", message="ConfigurationError: no")
        ended(trials[3])
    assert text.getvalue().splitlines() == [
        "[2/3] standard-seed1: accuracy 62.5%, NELBO 0.7123  (0 s)",
        "[3/4] standard-seed2: diverged: loss is nan at step 7, [see] the log  (0 s)",
        "[4/4] standard-seed3: failed: ConfigurationError: no  (0 s)",
    ]


def test_a_terminal_gets_the_table_and_what_went_wrong_above_it(tmp_path: Path) -> None:
    trials = list(_grid(tmp_path, ("standard",), 2).values())
    text = io.StringIO()
    console = Console(file=text, width=80, height=24, force_terminal=True, color_system=None)
    with watch_trials("trials", trials, "accuracy", console) as ended:
        _finish(trials[0])
        ended(trials[0])
        _write(trials[1], state="diverged", message="loss is nan")
        ended(trials[1])
        print("a worker's words")
    shown = text.getvalue()
    assert "[1/2]" not in shown, "the table says it"
    assert "[2/2] standard-seed1: diverged: loss is nan" in shown
    last = shown[shown.rindex("2 of 2 ended") :]
    assert "62.5%" in last
    assert "a worker's words" in shown
    assert "a worker's words" not in last
