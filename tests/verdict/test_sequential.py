"""Adaptive seeds: the boundaries against published ones, the rule against its promises."""

from math import isnan, nan

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from raymdm.benchmarks import looks as simulation
from raymdm.benchmarks.coverage import CASES
from raymdm.errors import ConfigurationError
from raymdm.verdict import compare
from raymdm.verdict.outcomes import Outcomes
from raymdm.verdict.sequential import SequentialDesign, look, replay
from raymdm.verdict.spending import nominal_levels, spent

FIFTHS = tuple(number / 5 for number in range(1, 6))


def design(*arms, seeds=12, batch=4, margin=1.0, **others):
    return SequentialDesign(
        ("base", *(arms or ("a",))), tuple(range(seeds)), batch, margin, **others
    )


def table(n, **arms):
    rows = [(arm, seed, column[seed]) for arm, column in arms.items() for seed in range(n)]
    return pd.DataFrame(rows, columns=["arm", "seed", "score"])


def noise(shift=0.0, n=12, seed=0):
    return shift + np.random.default_rng(seed).normal(size=n)


@pytest.mark.parametrize(
    ("spending", "published"),
    [
        # Lan and DeMets's program (Reboussin et al. 2000), five equal looks, two-sided 0.05.
        ("obrien_fleming", (4.877, 3.357, 2.680, 2.290, 2.031)),
        ("pocock", (2.438, 2.427, 2.410, 2.397, 2.386)),
    ],
)
def test_the_boundaries_are_the_published_ones(spending, published):
    found = stats.norm.isf(np.array(nominal_levels(FIFTHS, 0.05, spending)) / 2)
    assert found == pytest.approx(published, abs=6e-4)


@pytest.mark.parametrize("spending", ["obrien_fleming", "pocock"])
def test_a_single_look_has_the_whole_level_and_all_is_spent_at_the_end(spending):
    assert nominal_levels((1.0,), 0.05, spending) == pytest.approx((0.05,))
    assert spent(1.0, 0.05, spending) == pytest.approx(0.05)


@pytest.mark.parametrize("spending", ["obrien_fleming", "pocock"])
def test_more_error_never_makes_a_boundary_stricter(spending):
    """What Holm from look to look needs (Maurer and Bretz 2013)."""
    levels = [nominal_levels(FIFTHS, 0.05 / m, spending) for m in (7, 3, 2, 1)]
    assert (np.diff(np.array(levels), axis=0) > 0).all()


def test_a_normal_walk_crosses_the_boundaries_as_often_as_was_spent():
    walks = np.random.default_rng(1).normal(size=(100_000, 5)).cumsum(axis=1) / np.sqrt(range(1, 6))
    for spending in ("obrien_fleming", "pocock"):
        levels = np.array(nominal_levels(FIFTHS, 0.05, spending))
        crossed = 2 * stats.norm.sf(np.abs(walks)) < levels
        by_look = np.maximum.accumulate(crossed, axis=1).mean(axis=0)
        assert by_look == pytest.approx([spent(f, 0.05, spending) for f in FIFTHS], abs=0.002)


@pytest.mark.parametrize("case", range(12))
def test_a_design_of_one_look_is_the_decision_rule(case):
    random = np.random.default_rng(case)
    arms = {"base": random.normal(size=8)}
    arms |= {name: random.normal(shift, 1, 8) for name, shift in (("a", 2), ("b", 0.5), ("c", -2))}
    if case % 3 == 0:
        arms["a"][3] = nan
    runs = table(8, **arms)
    plan = design("a", "b", "c", seeds=8, batch=8, margin=1.5)
    rule = compare(runs, "base", margin=1.5)
    for row in look(plan, runs).arms:
        word = rule[row.arm].verdict
        assert row.word == ("futile" if word == "undecided" else word)
        assert row.p == pytest.approx(rule[row.arm].p_welch)


@pytest.mark.parametrize("comparisons", [1, 3])
@pytest.mark.parametrize("spending", ["obrien_fleming", "pocock"])
@pytest.mark.parametrize("case", CASES[:2], ids=lambda case: case.name)
def test_the_error_holds_under_a_true_null_with_a_look_after_every_batch(
    comparisons, spending, case
):
    """1,000 experiments: a standard error of 0.007."""
    error = simulation.sequential_error(simulation.design(comparisons, spending), case, 1000)
    assert error < 0.05 + 2 * 0.007


def test_looks_without_spending_err_three_times_as_often():
    """The simulation would see it."""
    assert simulation.naive_error(simulation.design(1), CASES[0], 1000) > 0.13


def test_the_simulation_rejects_what_the_rule_rejects():
    plan = design("a", "b", seeds=24, batch=3, margin=1e-9, futility=0.0)
    random = np.random.default_rng(3)
    scores = random.normal(size=(60, 3, 24)) + np.array([0.0, 0.5, 0.8])[:, None]
    found = []
    for experiment in scores:
        looks = simulation.looks_at(plan, experiment[1:], experiment[:1])
        rule = replay(plan, list(simulation.stages(plan, experiment)))
        found.append(any(row.word in ("better", "worse") for row in rule.arms))
        assert simulation.any_rejected(plan, looks) == found[-1]
    assert 10 < sum(found) < 60


def test_a_difference_of_the_margin_is_usually_found_before_all_seeds_are_used():
    words = simulation.sequential_words(simulation.design(1), simulation.MARGIN, 250)
    assert words["better"] > 0.66
    assert words["worse"] == 0
    assert words["equivalent"] < 0.05 + 3 * 0.014
    assert words["seeds"] < 20


def test_a_clear_difference_ends_the_sweep_at_an_early_look():
    arms = {"base": noise(), "a": noise(6, seed=1)}
    row = look(design(), table(12, **arms))["a"]
    assert (row.word, row.look, row.n) == ("better", 2, 8)
    assert row.p < row.boundary
    lower = look(design(higher_is_better=False), table(12, **arms))["a"]
    assert lower.word == "worse"


def test_it_goes_on_with_the_next_batch_for_all_arms_and_then_stops():
    arms = {"base": noise(), "a": noise(6, seed=1)}
    first = look(design(), table(4, **arms))
    assert first.goes_on
    assert first.seeds == tuple(range(8))
    second = look(design(), table(8, **arms))
    assert not second.goes_on
    assert second.seeds == tuple(range(8))
    nothing = look(design(), table(2, **arms))
    assert (nothing.look, nothing.seeds) == (0, (0, 1, 2, 3))


def test_later_runs_do_not_change_what_a_look_has_decided():
    arms = {"base": noise(), "a": noise(6, seed=1), "b": noise(0.8, seed=2)}
    arms["a"][8:] -= 30
    decision = look(design("a", "b", margin=0.5), table(12, **arms))
    assert decision.look == 3
    assert (decision["a"].word, decision["a"].look) == ("better", 2)


def test_an_arm_that_was_decided_leaves_its_error_to_the_others():
    plan = design("a", "b", seeds=24, batch=12, margin=0.05, futility=0.0)
    arms = {"base": noise(n=24), "a": noise(6, 24, 1), "b": noise(0, 24, 2)}
    decision = look(plan, table(24, **arms))
    assert decision["a"].look == 1
    assert decision["b"].boundary == plan.levels(0.05)[1]
    alike = look(plan, table(24, **{**arms, "a": noise(0, 24, 5)}))
    assert alike["b"].boundary == plan.levels(0.025)[1]


def test_arms_that_are_alike_are_equivalent_within_a_wide_margin():
    arms = {"base": noise(), "a": noise(seed=1)}
    assert look(design(margin=8.0), table(12, **arms))["a"].word == "equivalent"


def test_it_gives_up_where_the_seeds_left_would_hardly_decide():
    # The noise is ten times the margin: neither verdict is near.
    base = np.tile([-3.0, -1.0, 1.0, 3.0], 3)
    row = look(design(margin=0.3), table(12, base=base, a=base[::-1] + 0.1))["a"]
    assert (row.word, row.look) == ("futile", 1)
    assert "hardly decide" in row.reason
    patient = look(design(margin=0.3, futility=0.0), table(12, base=base, a=base[::-1] + 0.1))["a"]
    assert (patient.word, patient.look) == ("futile", 3)
    assert "all seeds" in patient.reason


def test_runs_that_may_still_come_are_waited_for_and_lost_ones_are_not():
    runs = table(4, base=noise(), a=noise(6, seed=1)).assign(state="finished")
    for state, reached in (("running", 0), ("interrupted", 0), ("failed", 1), ("diverged", 1)):
        assert look(design(), runs.assign(state=["finished"] * 7 + [state])).look == reached


def test_an_arm_with_a_diverged_run_is_never_better_or_equivalent():
    ours = noise(6, seed=1)
    ours[2] = nan
    assert look(design(), table(12, base=noise(), a=ours))["a"].word == "futile"
    assert look(design(margin=100.0), table(12, base=noise(), a=ours))["a"].word == "futile"


def test_scores_that_do_not_vary_decide_nothing():
    row = look(design(), table(12, base=[0.1] * 12, a=[0.3] * 12))["a"]
    assert (row.word, row.look) == ("futile", 3)
    assert isnan(row.p)


def test_the_looks_come_after_every_batch_but_not_before_three_seeds():
    assert design(seeds=8, batch=1).looks == (3, 4, 5, 6, 7, 8)
    assert design(seeds=10, batch=4).looks == (4, 8, 10)
    assert design(seeds=3, batch=9).looks == (3,)


def test_the_design_is_stored_and_read_again():
    plan = design("a", "b", spending="pocock", metric="accuracy")
    assert SequentialDesign.from_dict(plan.to_dict()) == plan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": (1, 2)}, "at least 3 different seeds"),
        ({"seeds": (1, 1, 2)}, "at least 3 different seeds"),
        ({"arms": ("base",)}, "a baseline and another arm"),
        ({"batch": 0}, "at least one seed"),
        ({"margin": 0.0}, "not a positive number"),
        ({"spending": "haybittle"}, "known: obrien_fleming, pocock"),
    ],
)
def test_a_design_that_cannot_work_is_refused(change, words):
    with pytest.raises(ConfigurationError, match=words):
        SequentialDesign(**{**design().to_dict(), "arms": ("base", "a"), **change})


def test_replaying_the_same_looks_gives_the_same_decision():
    plan = design()
    parts = [[Outcomes(noise(s, n, 7), (), 0, 0) for s in (0, 3)] for n in plan.looks]
    assert replay(plan, parts) == replay(plan, parts)
