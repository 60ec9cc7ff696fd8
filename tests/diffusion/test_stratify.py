"""Stratified uniforms: spread evenly over a step, and uniform one by one."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tiny import fitted_density, make_rows

from raymdm.diffusion import make_estimator
from raymdm.diffusion.noise import time_noise
from raymdm.diffusion.stratify import (
    AntitheticUniforms,
    IndependentUniforms,
    LatticeUniforms,
    StratifiedUniforms,
    Stratify,
    strata_of,
)
from raymdm.randomness import permutation

WAYS = [
    IndependentUniforms(),
    StratifiedUniforms(),
    StratifiedUniforms(3),
    LatticeUniforms(),
    AntitheticUniforms(),
]


def stratum(uniforms: np.ndarray, strata: int) -> np.ndarray:
    """The stratum that every uniform lies in."""
    return np.floor(uniforms * strata).astype(np.int64)


@pytest.mark.parametrize(("slots", "strata"), [(4, 2), (5, 2), (5, 3), (5, 4), (4, 4), (6, 4)])
def test_every_slot_is_in_every_stratum_equally_often_over_all_orders_and_offsets(
    slots: int, strata: int
):
    drawn = np.array(
        [
            strata_of(np.array(order), offset, strata)
            for order in permutations(range(slots))
            for offset in range(strata)
        ]
    )
    for slot in range(slots):
        counts = np.bincount(drawn[:, slot], minlength=strata)
        assert (counts == len(drawn) / strata).all()


def test_without_an_offset_the_first_strata_would_be_favoured():
    drawn = np.array([strata_of(np.array(order), 0, 3)[0] for order in permutations(range(5))])
    assert np.bincount(drawn).tolist() == [48, 48, 24]


@pytest.mark.parametrize("way", WAYS, ids=repr)
def test_each_uniform_alone_is_uniform_over_the_steps(way: Stratify):
    """Five slots in three strata: the extra slots must not always go to the same ones."""
    drawn = np.array([way(seed=4, step=step, batch_size=5) for step in range(3000)])
    for slot in range(5):
        assert stats.kstest(drawn[:, slot], "uniform").pvalue > 1e-3
        counts = np.bincount(stratum(drawn[:, slot], 3), minlength=3)
        assert stats.chisquare(counts).pvalue > 1e-3


@given(st.integers(1, 40), st.integers(2, 50), st.integers(0, 5), st.integers(0, 1000))
def test_strata_are_filled_equally(slots: int, strata: int, seed: int, step: int):
    uniforms = StratifiedUniforms(strata)(seed, step, slots)
    least = min(slots, strata)
    counts = np.bincount(stratum(uniforms, least), minlength=least)
    assert counts.sum() == slots
    assert counts.max() - counts.min() <= (slots % least > 0)
    assert (uniforms >= 0).all()
    assert (uniforms < 1).all()


@given(st.integers(1, 200), st.integers(0, 1000))
def test_the_lattice_has_one_uniform_in_each_of_as_many_cells_as_slots(slots: int, step: int):
    cells = stratum(LatticeUniforms()(1, step, slots), slots)
    assert sorted(cells) == list(range(slots))


def test_more_strata_than_slots_are_the_lattice():
    lattice = LatticeUniforms()(2, 3, 12)
    np.testing.assert_array_equal(StratifiedUniforms(12)(2, 3, 12), lattice)
    np.testing.assert_array_equal(StratifiedUniforms(500)(2, 3, 12), lattice)


@pytest.mark.parametrize(("slots", "strata"), [(1, 1), (15, 3), (16, 4), (24, 4), (25, 5)])
def test_the_number_of_strata_is_the_root_of_the_batch_unless_given(slots: int, strata: int):
    np.testing.assert_array_equal(
        StratifiedUniforms()(0, 1, slots), StratifiedUniforms(strata)(0, 1, slots)
    )


@given(st.integers(1, 33), st.integers(0, 300))
def test_antithetic_uniforms_pair_to_one_and_the_odd_one_out_is_plain(slots: int, step: int):
    uniforms = AntitheticUniforms()(7, step, slots)
    plain = time_noise(7, step, slots)
    sums_to_one = np.abs(uniforms[:, None] + uniforms - 1) < 1e-12
    np.fill_diagonal(sums_to_one, False)
    partners = sums_to_one.sum(0)
    assert sorted(partners) == [0] * (slots % 2) + [1] * (slots - slots % 2)
    alone = partners == 0
    np.testing.assert_array_equal(uniforms[alone], plain[alone])
    assert (uniforms == plain).sum() == slots - slots // 2


@pytest.mark.parametrize("way", WAYS, ids=repr)
def test_uniforms_are_a_function_of_seed_and_step(way: Stratify):
    first = way(3, 5, 16)
    np.testing.assert_array_equal(way(3, 5, 16), first)
    assert (way(3, 6, 16) != first).all()
    assert (way(4, 5, 16) != first).all()


def test_the_places_of_slots_are_shuffled_anew_in_every_step():
    """Up to the offset, which alone would only turn the same order around."""
    places = [stratum(LatticeUniforms()(0, step, 16), 16) for step in range(50)]
    for one, next_one in pairwise(places):
        assert len(np.unique((one - next_one) % 16)) > 1
    first = np.array([stratum(LatticeUniforms()(0, step, 4), 4)[0] for step in range(2000)])
    assert stats.chisquare(np.bincount(first)).pvalue > 1e-3


def test_the_places_of_slots_have_nothing_to_do_with_the_order_of_rows():
    """Otherwise the same rows would meet the same rates; the addresses of both are (seed, step)."""
    for seed in range(5):
        for step in range(20):
            places = stratum(LatticeUniforms()(seed, step, 16), 16)
            assert len(np.unique((places - permutation(seed, step, 16)) % 16)) > 1


def test_importance_sampling_stratifies_in_its_own_mass():
    density = fitted_density()
    estimator = make_estimator("ppots_lattice", density)
    rates = estimator.draw_time(seed=2, step=1, batch_size=40)
    assert sorted(stratum(density.cdf(rates), 40)) == list(range(40))
    assert sorted(stratum(rates, 40)) != list(range(40))


def test_exact_counts_of_a_lattice_step_take_every_value_once():
    estimator, rows = make_estimator("count"), make_rows([((0,), (1,) * 12)] * 12)
    rates = estimator.draw_time(seed=2, step=1, batch_size=12)
    hidden = estimator.views(rows, rates, estimator.draw_noise(2, 0, rows)).hidden
    assert sorted(hidden[0].sum(-1).tolist()) == list(range(1, 13))


@pytest.mark.parametrize(
    ("way", "share"),
    [(StratifiedUniforms(), 0.15), (AntitheticUniforms(), 0.1), (LatticeUniforms(), 0.02)],
    ids=repr,
)
def test_the_mean_of_a_smooth_function_scatters_far_less(way: Stratify, share: float):
    """By 1/K² of what independent uniforms give, K = 4 strata or the 16 of a lattice."""

    def variance(of: Stratify) -> float:
        means = [np.exp(of(seed=0, step=step, batch_size=16)).mean() for step in range(400)]
        assert np.mean(means) == pytest.approx(np.e - 1, abs=0.03)
        return float(np.var(means))

    assert variance(way) < share * variance(IndependentUniforms())
