"""The page of a run of rounds: what it says, and that it can do with little."""

from pathlib import Path

import pandas as pd
import pytest
from invented_rounds import invented
from page_reader import Page, check_self_contained

from raymdm.errors import DataError
from raymdm.reinforcement import curves
from raymdm.reinforcement.figures import write_figures

ROUNDS = invented(100)


def page_of(folder: Path, rounds: pd.DataFrame) -> Page:
    folder.mkdir(exist_ok=True)
    rounds.to_parquet(folder / "metrics.parquet", index=False)
    path = write_figures(folder)
    assert path == folder / "rl.html"
    page = Page(path)
    check_self_contained(page)
    return page


def test_the_page_says_how_the_run_went(tmp_path: Path):
    folder = tmp_path / "<run>"
    (folder / "samples").mkdir(parents=True)
    (folder / "samples" / "index.html").touch()
    page = page_of(folder, ROUNDS)
    text = " ".join(page.shown.split())
    assert "<run> 100 rounds" in text
    first, last = ROUNDS["reward"][:10].mean(), ROUNDS["reward"][-10:].mean()
    assert f"reward of the rollouts {first:.3f} {last:.3f}" in text
    held_out = ROUNDS["validation_reward"].dropna()
    assert f"held-out reward: {held_out[0]:.3f} at round 1 (first), {held_out[75]:.3f} at" in text
    assert f"took too long, and count 0: {ROUNDS['rewards_timed_out'].sum()} " in text
    assert "crashed" not in text
    assert "6,400 rollouts" in text
    assert "9.3 minutes" in text
    assert len(page.all("svg")) == 11
    assert [link["href"] for link in page.all("a")] == ["samples/index.html"]


def test_one_round_makes_a_page(tmp_path: Path):
    page = page_of(tmp_path, invented(1))
    assert "1 round of" in page.shown
    assert len(page.all("svg")) == 11


@pytest.mark.parametrize("missing", list(ROUNDS))
def test_a_column_may_be_missing(missing: str):
    rounds = invented(3).drop(columns=missing)
    drawn = [curves.reward_plot(rounds), curves.by_step_plot(rounds), curves.seconds_plot(rounds)]
    assert (drawn[1] is None) == (missing == "reward_by_denoising_step")
    assert all(drawn[::2])


def test_nothing_measured_has_no_picture(tmp_path: Path):
    page = page_of(tmp_path, pd.DataFrame({"step": [1, 2], "reward": [float("nan")] * 2}))
    assert page.all("svg") == []


def test_rows_of_another_number_of_steps_are_not_mixed_in():
    rounds = invented(30)
    rounds.at[28, "reward_by_denoising_step"] = [9.0]
    rounds.at[5, "reward_by_denoising_step"] = None
    assert curves.by_step_plot(rounds)


def test_a_run_without_metrics_is_told_so(tmp_path: Path):
    with pytest.raises(DataError, match=r"metrics.parquet: no readable metrics .*round\?"):
        write_figures(tmp_path)
    (tmp_path / "metrics.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="no readable metrics"):
        write_figures(tmp_path)


def test_a_long_run_keeps_a_small_page(tmp_path: Path):
    page_of(tmp_path, invented(4000))
    assert (tmp_path / "rl.html").stat().st_size < 600_000
