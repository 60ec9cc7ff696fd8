"""The decision rule, frozen: a change here changes what raymdm tells its users."""

import json
import warnings
from math import isnan, nan

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from raymdm.errors import ConfigurationError, DataError, UserError
from raymdm.verdict import compare

# GSM8K accuracies of the paper, three seeds each.
STANDARD = (50.64, 53.22, 53.68)
PPOTS_MIRROR = (62.02, 58.61, 60.96)


def table(**arms):
    rows = [(arm, seed, score) for arm, column in arms.items() for seed, score in enumerate(column)]
    return pd.DataFrame(rows, columns=["arm", "seed", "score"])


def test_the_papers_gsm8k_seeds_are_better_and_rest_on_normality():
    row = compare(table(standard=STANDARD, ours=PPOTS_MIRROR), "standard")["ours"]
    assert row.verdict == "better"
    assert row.difference == pytest.approx(8.0167, abs=1e-4)
    assert row.p_welch == pytest.approx(0.0044, abs=1e-4)
    assert row.p_holm == row.p_welch
    assert row.interval == pytest.approx((4.1733, 11.8600), abs=1e-4)
    assert row.p_permutation == pytest.approx(0.10)
    assert row.p_floor == pytest.approx(0.10)
    assert row.rests_on_normality


def test_the_verdict_is_worse_when_the_same_seeds_swap_sides():
    row = compare(table(ours=PPOTS_MIRROR, standard=STANDARD), "ours")["standard"]
    assert row.verdict == "worse"


def test_lower_is_better_turns_the_verdict():
    runs = table(standard=STANDARD, ours=PPOTS_MIRROR)
    assert compare(runs, "standard", higher_is_better=False)["ours"].verdict == "worse"


def test_the_numbers_are_those_of_scipys_welch_test():
    row = compare(table(a=STANDARD, b=PPOTS_MIRROR), "a")["b"]
    expected = stats.ttest_ind(PPOTS_MIRROR, STANDARD, equal_var=False)
    assert row.p_welch == pytest.approx(expected.pvalue)
    assert row.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert row.interval_90 == pytest.approx(tuple(expected.confidence_interval(0.90)))


def test_holm_can_take_back_what_a_single_comparison_would_grant():
    base = (0.50, 0.52, 0.54, 0.51, 0.53)
    shifted = tuple(score + 0.025 for score in base)
    alone = compare(table(base=base, a=shifted), "base")
    assert alone["a"].verdict == "better"
    among = compare(table(base=base, a=shifted, b=base[::-1], c=base), "base")
    assert among["a"].p_welch == alone["a"].p_welch
    assert among["a"].p_holm == pytest.approx(3 * among["a"].p_welch)
    assert among["a"].verdict == "undecided"


def test_arms_within_the_margin_are_equivalent_and_without_a_margin_undecided():
    base = np.linspace(0.50, 0.51, 8)
    runs = table(base=base, same=base + 0.001)
    assert compare(runs, "base", margin=0.02)["same"].verdict == "equivalent"
    assert compare(runs, "base", margin=0.002)["same"].verdict == "undecided"
    assert compare(runs, "base")["same"].verdict == "undecided"


def test_equivalence_is_read_from_the_90_percent_interval():
    base = np.linspace(0.50, 0.51, 8)
    runs = table(base=base, same=base + 0.001)
    row = compare(runs, "base")["same"]
    between = (row.interval_90[1] + row.interval[1]) / 2
    assert compare(runs, "base", margin=between)["same"].verdict == "equivalent"


def test_an_arm_with_a_diverged_run_is_never_better():
    good = (62.0, 61.0, 61.5, 62.5)
    finished = compare(table(standard=STANDARD, ours=good), "standard")["ours"]
    row = compare(table(standard=STANDARD, ours=(*good, nan)), "standard")["ours"]
    assert finished.verdict == "better"
    assert (row.n, row.n_diverged, row.n_failed) == (5, 1, 0)
    assert row.p_holm < 0.05
    assert row.verdict == "undecided"


def test_a_diverged_arm_can_still_be_worse_and_is_never_equivalent():
    worse = compare(table(ours=PPOTS_MIRROR, bad=(*STANDARD, np.inf)), "ours")["bad"]
    assert worse.verdict == "worse"
    base = tuple(np.linspace(0.50, 0.51, 8))
    close = compare(table(base=base, same=(*base, nan)), "base", margin=0.05)["same"]
    assert close.verdict == "undecided"


def test_a_baseline_that_diverged_does_not_win_by_its_survivors():
    runs = table(standard=(*PPOTS_MIRROR, nan), ours=STANDARD)
    assert compare(runs, "standard")["ours"].verdict == "undecided"


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_diverged_runs_rank_as_worst_in_the_permutation_test(higher_is_better):
    sign = 1 if higher_is_better else -1
    base = [sign * score for score in (1.0, 2.0, 3.0, 4.0)]
    ours = [sign * score for score in (5.0, 6.0, 7.0)]
    runs = table(base=base, ours=[*ours, nan])
    row = compare(runs, "base", higher_is_better=higher_is_better)["ours"]
    # Ranks 2..5 against 6, 7, 8 and, for the diverged run, 1.
    ranked = compare(table(base=[2, 3, 4, 5], ours=[6, 7, 8, 1]), "base")["ours"]
    assert row.p_permutation == ranked.p_permutation
    assert row.p_permutation > 2 / 70, "the diverged run must cost the arm its perfect separation"


def test_failed_runs_are_counted_and_not_scored():
    runs = table(standard=STANDARD, ours=(*PPOTS_MIRROR, nan, 0.0))
    runs["state"] = ["finished"] * 6 + ["failed", "failed"]
    row = compare(runs, "standard")["ours"]
    assert (row.n, row.n_failed, row.n_diverged) == (3, 2, 0)
    assert row.verdict == "better"


def test_a_score_of_a_run_that_is_said_to_have_diverged_is_ignored():
    runs = table(standard=STANDARD, ours=PPOTS_MIRROR)
    runs["state"] = ["finished"] * 5 + ["diverged"]
    row = compare(runs, "standard")["ours"]
    assert (row.n_finished, row.n_diverged) == (2, 1)


def test_one_seed_is_undecided_with_undefined_statistics():
    row = compare(table(standard=STANDARD, ours=(62.0,)), "standard")["ours"]
    assert row.verdict == "undecided"
    assert row.difference == pytest.approx(62.0 - np.mean(STANDARD))
    undefined = (row.sd, row.p_welch, row.p_holm, row.p_permutation, row.variance_ratio)
    assert all(isnan(number) for number in (*undefined, *row.interval))


def test_an_arm_whose_runs_all_diverged_is_undecided():
    row = compare(table(standard=STANDARD, ours=(nan, nan)), "standard")["ours"]
    assert (row.verdict, row.n_diverged, row.n_finished) == ("undecided", 2, 0)


def test_scores_without_any_variation_are_undecided_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdict = compare(table(a=[0.1] * 3, b=[0.3] * 3, c=[0.1 + 0.2] * 3), "a")
    assert [row.verdict for row in verdict.arms] == ["baseline", "undecided", "undecided"]
    assert isnan(verdict["b"].p_welch)


def test_one_constant_side_is_enough_noise_to_judge_by():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = compare(table(a=[0.1] * 3, b=[0.30, 0.31, 0.32]), "a")["b"]
    assert row.verdict == "better"


def test_more_seeds_or_fewer_arms_free_a_verdict_from_normality():
    four = np.arange(4.0)
    assert not compare(table(a=four, b=four), "a")["b"].rests_on_normality
    assert compare(table(a=four, b=four, c=four), "a")["b"].rests_on_normality


def test_the_seeds_needed_do_not_depend_on_the_observed_difference():
    base, ours = np.array(STANDARD), np.array(PPOTS_MIRROR)
    near = compare(table(a=base, b=ours), "a", margin=2.0)["b"]
    far = compare(table(a=base, b=ours + 100), "a", margin=2.0)["b"]
    assert near.seeds_needed == far.seeds_needed
    assert near.seeds_needed_for == 2.0


def test_without_a_margin_the_seeds_are_for_twice_the_baselines_standard_error():
    row = compare(table(a=STANDARD, b=PPOTS_MIRROR), "a")["b"]
    assert row.seeds_needed_for == pytest.approx(2 * np.std(STANDARD, ddof=1) / np.sqrt(3))


def test_a_table_of_items_gives_each_run_the_mean_over_its_items():
    items = table(a=STANDARD, b=PPOTS_MIRROR)
    wide = pd.concat([items.assign(item=i, score=items["score"] + i - 1) for i in range(3)])
    averaged, direct = compare(wide, "a")["b"], compare(items, "a")["b"]
    assert averaged.scores == pytest.approx(direct.scores)
    assert (averaged.n, averaged.verdict) == (3, direct.verdict)


def test_the_verdict_serialises_to_strict_json():
    runs = table(standard=STANDARD, ours=(62.0, nan))
    content = json.loads(json.dumps(compare(runs, "standard").to_dict(), allow_nan=False))
    ours = content["arms"]["ours"]
    assert list(content["arms"]) == ["standard", "ours"]
    assert ours["p_holm"] is None
    assert ours["interval"] == [None, None]
    promised = {
        *("n", "n_failed", "n_diverged", "mean", "sd", "min", "max", "difference", "interval"),
        *("p_welch", "p_holm", "p_permutation", "variance_ratio", "variance_ratio_interval"),
        *("verdict", "rests_on_normality", "seeds_needed"),
    }
    assert promised <= set(ours)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda runs: runs.drop(columns="seed"), DataError, "no column 'seed'"),
        (lambda runs: runs.assign(score="high"), DataError, "'score' is not numeric"),
        (lambda runs: runs.assign(seed=1), DataError, "arm 'standard' has seed 1 twice"),
        (lambda runs: runs.assign(state="okay"), DataError, "unknown state 'okay'"),
        (lambda runs: runs.iloc[:0], DataError, "no runs"),
        (lambda runs: runs[runs["arm"] == "ours"], ConfigurationError, "not among the arms: ours"),
    ],
)
def test_a_table_that_does_not_fit_is_the_users_error(change, kind, words):
    with pytest.raises(kind, match=words) as caught:
        compare(change(table(standard=STANDARD, ours=PPOTS_MIRROR)), "standard")
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)


def test_a_mistyped_baseline_is_answered_with_the_nearest_arm():
    with pytest.raises(ConfigurationError, match="did you mean 'standard'"):
        compare(table(standard=STANDARD, ours=PPOTS_MIRROR), "standart")
