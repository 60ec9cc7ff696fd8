"""Noise of the test items, apart from that of the seeds."""

from math import isnan

import numpy as np
import pandas as pd
import pytest
from synthetic_sweep import write_sweep

from raymdm.verdict import compare, read_sweep, summarise
from raymdm.verdict.item_noise import binomial_noise, crossed, item_noise, resampled_scores
from raymdm.verdict.score_table import read_table

ONES = np.ones(200)


def scores(random, runs=6, items=200, seed_sd=0.0, item_sd=0.0, both_sd=0.0, mean=0.0):
    parts = [random.normal(0, seed_sd, (runs, 1)), random.normal(0, item_sd, (1, items))]
    return mean + sum(parts) + random.normal(0, both_sd, (runs, items))


def long(arms, column="score"):
    rows = [
        (arm, seed, f"q{item}", value)
        for arm, values in arms.items()
        for seed, row in enumerate(values)
        for item, value in enumerate(row)
    ]
    return pd.DataFrame(rows, columns=["arm", "seed", "item", column])


def test_item_noise_is_the_run_by_item_part_of_the_spread():
    random = np.random.default_rng(0)
    found = [item_noise(scores(random, 6, 200, 0.3, 1.0, 2.0), ONES) for _ in range(50)]
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(2.0 / np.sqrt(200), rel=0.02)


def test_items_that_are_hard_for_all_runs_are_not_noise_between_them():
    values = scores(np.random.default_rng(0), seed_sd=0.3, item_sd=1.0)
    assert item_noise(values, ONES) == pytest.approx(0, abs=1e-12)


def test_with_weights_it_is_the_noise_of_the_weighted_mean():
    random = np.random.default_rng(0)
    weights = random.integers(1, 20, 200).astype(float)
    noise = [item_noise(random.normal(size=(2, 200)), weights) for _ in range(400)]
    means = random.normal(size=(4000, 200)) @ weights / weights.sum()
    assert np.sqrt(np.mean(np.square(noise))) == pytest.approx(np.std(means), rel=0.05)


def test_a_coin_for_every_item_bounds_the_noise_of_an_accuracy():
    assert binomial_noise(0.5, 100) == pytest.approx(0.05)
    assert isnan(binomial_noise(50.0, 100)), "a percentage is not a share"


def test_items_are_resampled_once_for_all_runs():
    random = np.random.default_rng(0)
    alike = scores(random, item_sd=5.0)
    low, high = crossed(alike + 1, alike, ONES)
    assert (low, high) == pytest.approx((1.0, 1.0)), "what items have in common cancels"
    apart = scores(random, item_sd=5.0)
    low, high = crossed(alike + 1, apart, ONES)
    assert high - low > 1.0


def test_the_crossed_interval_is_wider_where_arms_differ_on_other_items():
    random = np.random.default_rng(0)
    first, second = scores(random, seed_sd=0.1), scores(random, seed_sd=0.1)
    plain = crossed(first, second, ONES)
    on_items = crossed(first + random.normal(0, 2, (1, 200)), second, ONES)
    assert np.ptp(on_items) > 2 * np.ptp(plain)


def test_resampled_scores_are_weighted_means_over_the_drawn_items():
    values = np.random.default_rng(0).normal(size=(3, 50))
    weights = np.arange(1.0, 51)
    found = resampled_scores(values, weights, 300, np.random.default_rng(7))
    drawn = np.random.default_rng(7).integers(50, size=(250, 50))
    expected = (values[:, drawn] * weights[drawn]).sum(-1) / weights[drawn].sum(-1)
    assert found.shape == (300, 3)
    assert found[:250] == pytest.approx(expected.T)


def test_a_table_of_items_shows_item_noise_and_the_crossed_interval():
    random = np.random.default_rng(0)
    right = {arm: random.random((8, 40)) < p for arm, p in (("a", 0.5), ("b", 0.6))}
    items = long({arm: values.astype(float) for arm, values in right.items()})
    row = compare(items, "a")["b"]
    assert row.items == 40
    assert row.item_noise == pytest.approx(row.item_noise_binomial, rel=0.2)
    assert row.mostly_items
    low, high = row.beside.crossed_interval
    assert low < row.difference < high
    averaged = items.groupby(["arm", "seed"], as_index=False)["score"].mean()
    plain = compare(averaged, "a")["b"]
    assert (plain.items, plain.mostly_items) == (0, False)
    assert isnan(plain.beside.crossed_interval[0])
    assert plain.p_holm == pytest.approx(row.p_holm)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda items: items.iloc[1:],
        lambda items: pd.concat([items, items.iloc[:1]]),
        lambda items: items[items["item"] == "q0"],
    ],
    ids=["an item is missing in a run", "an item stands twice", "there is one item"],
)
def test_items_that_are_not_crossed_with_the_runs_are_left_out(spoil):
    values = {arm: np.random.default_rng(i).random((3, 5)) for i, arm in enumerate("ab")}
    row = compare(spoil(long(values)), "a")["b"]
    assert row.items == 0
    assert row.n == 3


def test_the_items_of_a_sweep_are_read_for_both_metrics(tmp_path):
    random = np.random.default_rng(0)
    correct = {arm: (random.random((4, 30)) < 0.5).astype(float) for arm in ("standard", "ours")}
    tokens = random.integers(1, 9, 30)
    nll = {arm: tokens * random.uniform(0.5, 0.9, (4, 30)) for arm in correct}
    accuracies = {arm: list(values.mean(axis=1)) for arm, values in correct.items()}
    write_sweep(tmp_path, accuracies)
    for arm, values in correct.items():
        for seed, row in enumerate(values):
            folder = tmp_path / "runs" / f"0-{arm}-{seed}"
            frame = pd.DataFrame({"item": range(30), "correct": row, "nll": nll[arm][seed]})
            frame.assign(tokens=tokens).to_parquet(folder / "items.parquet")
            file = folder / "scores.json"
            bound = nll[arm][seed].sum() / tokens.sum()
            text = file.read_text().replace(str(1.5 - accuracies[arm][seed]), str(bound))
            file.write_text(text)
    summary = summarise(read_sweep(tmp_path))
    for comparison in summary.comparisons:
        row = comparison.verdict["ours"]
        assert row.items == 30
        assert row.item_noise > 0
        assert np.isfinite(row.beside.crossed_interval).all()
    assert isnan(summary.comparisons[1].verdict["ours"].item_noise_binomial)
    assert any("noise of the 30 test items" in note for note in summary.notes)
    (tmp_path / "runs" / "0-ours-2" / "items.parquet").unlink()
    assert summarise(read_sweep(tmp_path)).comparisons[0].verdict["ours"].items == 0


def test_a_csv_file_of_items_keeps_them(tmp_path):
    values = {arm: np.random.default_rng(i).random((3, 6)) for i, arm in enumerate("ab")}
    long(values).to_csv(tmp_path / "scores.csv", index=False)
    summary = summarise(read_table(tmp_path / "scores.csv"))
    assert summary.comparisons[0].verdict["b"].items == 6
