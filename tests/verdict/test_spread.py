"""The spread between seeds: a word of its own, from Brown and Forsythe's test alone."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from synthetic_sweep import write_sweep

from raymdm.verdict import compare, read_sweep, summarise
from raymdm.verdict.report import render_report
from raymdm.verdict.spread import spreads
from raymdm.verdict.spread_power import detectable_sd_ratio

SHAPE = np.array([-1.6, -1.1, -0.7, -0.2, 0.2, 0.7, 1.1, 1.6])


def judged(arms, **options):
    rows = [
        {"arm": arm, "seed": seed, "score": score}
        for arm, scores in arms.items()
        for seed, score in enumerate(scores)
    ]
    return compare(pd.DataFrame(rows), next(iter(arms)), **options)


def test_a_clear_difference_of_spread_has_its_word_and_its_figures():
    verdict = judged({"wide": 50 + 10 * SHAPE, "narrow": 50 + SHAPE})
    (found,) = spreads(verdict)
    assert found.word == "spreads less"
    assert found.sd_ratio == pytest.approx(0.1)
    p = stats.levene(SHAPE, 10 * SHAPE, center="median").pvalue
    assert found.p_holm == pytest.approx(p)
    assert found.sentence == (
        "the seeds of narrow spread 0.1 times as much as those of wide on score (sd 1.11 against "
        "11.08; ratio of variances 0.01, 95% F interval [0.002, 0.05], Brown-Forsythe p < 0.001, "
        "Holm < 0.001): spreads less"
    )
    assert spreads(judged({"narrow": SHAPE, "wide": 10 * SHAPE}))[0].word == "spreads more"


def test_the_verdict_on_means_is_left_alone():
    verdict = judged({"wide": 50 + 10 * SHAPE, "narrow": 50 + SHAPE})
    assert spreads(verdict)[0].word == "spreads less"
    assert verdict["narrow"].verdict == "undecided"


def test_the_f_interval_never_decides():
    """One far seed: the F interval excludes 1, the deviations from the medians do not differ."""
    far = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 9])
    verdict = judged({"even": SHAPE / 2, "far": far})
    assert verdict["far"].variance_ratio_interval[0] > 1
    assert spreads(verdict)[0].word == "undecided"


def test_holm_counts_the_arms():
    arms = {"base": 3.5 * SHAPE, "narrow": SHAPE}
    (alone,) = spreads(judged(arms))
    assert alone.word == "spreads less"
    more = spreads(judged({**arms, **{f"same{n}": 3.5 * SHAPE for n in range(9)}}))
    assert more[0].p_holm == pytest.approx(10 * alone.p_holm)
    assert more[0].word == "undecided"
    assert "Holm over 10 arms could not have seen any ratio of sds" in more[0].sentence


def test_what_the_seeds_could_have_seen_stands_beside_an_undecided_spread():
    (found,) = spreads(judged({"base": SHAPE, "other": SHAPE + 1}))
    assert found.word == "undecided"
    assert found.detectable == pytest.approx(5.9, abs=0.1)
    assert found.sentence.endswith(
        "undecided; 8 against 8 seeds could have seen only ratios of sds above 5.9 or below 1/5.9"
    )


@pytest.mark.parametrize("seeds", [8, 24])
def test_a_ratio_that_can_be_seen_is_seen_in_eighty_percent(seeds):
    ratio = detectable_sd_ratio(seeds, seeds)
    random = np.random.default_rng(5)
    narrow, wide = random.normal(size=(2, 4000, seeds))
    p = stats.levene(narrow, ratio * wide, center="median", axis=1).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.025)


def test_more_comparisons_and_fewer_seeds_see_less():
    assert detectable_sd_ratio(24, 24) < detectable_sd_ratio(24, 24, 3) < detectable_sd_ratio(8, 8)
    assert detectable_sd_ratio(3, 3) == np.inf
    assert np.isnan(detectable_sd_ratio(2, 8))


def test_the_survivors_of_an_arm_that_diverged_do_not_make_it_steady():
    wide, narrow = 10 * SHAPE, SHAPE
    diverged = [*narrow[:-1], np.nan]
    (found,) = spreads(judged({"wide": wide, "narrow": diverged}))
    assert found.p_holm < 0.05
    assert found.word == "undecided"
    assert found.sentence.endswith("narrow diverged 1/8")
    # It spreads more even without the run that it lost.
    assert spreads(judged({"narrow": narrow, "wide": [*wide[:-1], np.nan]}))[0].word == (
        "spreads more"
    )


def test_two_seeds_and_scores_that_never_vary_are_undecided():
    (few,) = spreads(judged({"base": [1, 2], "other": [1.0, 9.0]}))
    assert few.word == "undecided"
    assert few.sentence.endswith("2 against 2 seeds; it takes at least three on each side")
    (same,) = spreads(judged({"base": [1.0] * 4, "other": [2.0] * 4}))
    assert same.sentence.endswith("the scores do not vary between the seeds")
    assert spreads(judged({"base": [1.0, 2.0]})) == []


def test_spreads_are_in_the_summary_and_on_the_page(tmp_path):
    scores = {"standard": 0.5 + 0.1 * SHAPE, "ours": 0.5 + 0.01 * SHAPE}
    sweep = write_sweep(tmp_path, {arm: list(map(float, each)) for arm, each in scores.items()})
    summary = summarise(read_sweep(sweep))
    content = json.loads(json.dumps(summary.to_dict(), allow_nan=False))["spread"]
    assert content["accuracy"]["ours"]["word"] == "spreads less"
    assert content["accuracy"]["ours"]["sd_ratio"] == pytest.approx(0.1)
    assert content["nelbo"]["ours"]["sentence"].startswith("secondary: the seeds of ours spread")
    page = render_report(summary)
    assert "Spread between seeds" in page
    assert content["accuracy"]["ours"]["sentence"].replace("<", "&lt;") in page


def test_spreads_of_several_settings_are_kept_apart(tmp_path):
    scores = {"standard": [0.5, 0.6, 0.7], "ours": [0.5, 0.6, 0.8]}
    settings = [{"training.steps": 1}, {"training.steps": 2}]
    content = summarise(read_sweep(write_sweep(tmp_path, scores, settings))).to_dict()["spread"]
    assert set(content["accuracy"]) == {"training.steps=1", "training.steps=2"}
    assert content["accuracy"]["training.steps=2"]["ours"]["sentence"].startswith(
        "[training.steps=2] the seeds of ours"
    )
