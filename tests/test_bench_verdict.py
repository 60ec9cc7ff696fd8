"""The simulation behind the shipped coverage table, and what the table has to show."""

import json

import numpy as np
import pytest
from rich.console import Console

from raymdm.benchmarks import verdict as simulation
from raymdm.benchmarks.coverage import CASES, FORMULAS, SHIFT, covered
from raymdm.benchmarks.verdict import SEEDS
from raymdm.verdict import power, sensitivity, statistics
from raymdm.verdict.coverage import FILE, coverage

SHIPPED = json.loads(FILE.read_text())
FEW = [str(n) for n in range(3, 11)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_primary_interval_covers_what_it_has_to_for_3_to_10_seeds(case):
    """>= 93% on normal scores, >= 89% on exponential ones; 10,000 experiments each."""
    least = 0.93 if case.law == "normal" else 0.89
    shares = SHIPPED["coverage"]["welch"][case.name]
    assert SHIPPED["repeats"] == 10_000
    assert min(shares[n] for n in FEW) >= least


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("n", range(3, 11))
def test_the_primary_interval_covers_as_shipped(case, n):
    """1,000 experiments: a standard error of 0.01 at most."""
    share = covered("welch", case, n, 1000, 0)
    assert share == pytest.approx(SHIPPED["coverage"]["welch"][case.name][str(n)], abs=0.03)
    assert share >= (0.93 if case.law == "normal" else 0.89) - 0.02


@pytest.mark.parametrize("name", [*FORMULAS, "bca", "crossed"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_other_intervals_cover_as_shipped(name, case):
    shipped = SHIPPED["coverage"][name][case.name]
    assert covered(name, case, 8, 1000, 100) == pytest.approx(shipped["8"], abs=0.09)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_stack_of_experiments_is_judged_as_each_of_them_would_be(case):
    first, second = case.arms(np.random.default_rng(5), 25, 8)
    ratio, scale = case.ratio, ((1 + case.ratio**2) / 2) ** 0.5
    for one, two, *found in zip(
        first, second, *(formula(first, second, case) for formula in FORMULAS.values()), strict=True
    ):
        intervals = {
            "welch": (statistics.welch(one, two).interval, case.shift),
            "student": (statistics.mean_interval(one), case.shift),
            "paired": (sensitivity.paired(one, two).interval, case.shift),
            "variance_ratio": (statistics.variance_ratio(one, two)[1], ratio**-2),
            "effect_size": (sensitivity.hedges_g(one, two)[1], SHIFT),
            "seeds_needed": (power.pooled_sd_interval(one, two), scale),
        }
        expected = [low <= truth <= high for (low, high), truth in intervals.values()]
        assert list(intervals) == list(FORMULAS)
        assert expected == found


def test_the_sequential_rule_keeps_its_error_on_normal_scores():
    """10,000 experiments each: a standard error of 0.0022."""
    for cases in SHIPPED["sequential_error"].values():
        for name in ("normal 1:1", "normal 1:3"):
            assert max(cases[name].values()) <= 0.05 + 2 * 0.0022


def test_an_interval_below_92_percent_in_any_case_only_describes():
    found = coverage("variance_ratio", 8)
    assert found.normal > 0.94
    assert found.skewed < 0.85
    assert found.descriptive
    assert coverage("bca", 7) is None
    assert coverage("welch", 2) is None
    assert coverage("welch", 11).seeds == 10
    assert coverage("welch", 500).seeds == SEEDS[-1]


def test_the_shipped_table_is_what_the_command_writes_now():
    """The same keys and rounding, from a much smaller simulation; and it can be printed."""
    figures = simulation.measure_verdict(repeats=40, bootstrap_repeats=2, seeds=(3, 8))

    def keys(content):
        return (
            {k: keys(v) for k, v in content.items() if k not in map(str, SEEDS)}
            if isinstance(content, dict)
            else None
        )

    written = {"name": "verdict", **figures}
    assert keys(written) == keys(SHIPPED)
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in simulation.tables(SHIPPED):
        console.print(table)
    text = console.export_text()
    for words in ("exponential scores, sd 1:3", "seeds_needed", "obrien_fleming", "p < 0.05"):
        assert words in text
