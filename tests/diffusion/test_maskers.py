"""Maskers and laws: how often each position is masked, and how the views of a row hang together.

The noise is a fine grid of [0,1), one position per point, so shares of positions are probabilities
to within the width of a cell.
"""

from collections import Counter
from itertools import permutations, product
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import fitted_density
from torch import Tensor

from raymdm.diffusion import TimeDensity
from raymdm.diffusion.law import CountLaw, RateLaw
from raymdm.diffusion.masking import (
    ComplementMasker,
    IndependentMasker,
    Masker,
    MirrorMasker,
    RotationMasker,
)
from raymdm.diffusion.time import ClippedTime, ImportanceTime, TimeSampler, UniformTime

POINTS = 10_000
CELL = 1 / POINTS
EPSILON = 1e-3
MASKERS = [
    IndependentMasker(),
    IndependentMasker(3),
    MirrorMasker(),
    RotationMasker(2),
    RotationMasker(5),
    ComplementMasker(),
]
rates = st.floats(0.0, 1.0)


def grid_noise(masker: Masker) -> Tensor:
    """U[R, 1, POINTS]: the midpoints of equal cells, in an order of its own for every replica."""
    grid = (torch.arange(POINTS, dtype=torch.float64) + 0.5) / POINTS
    orders = [
        torch.from_numpy(np.random.default_rng(r).permutation(POINTS))
        for r in range(masker.replicas)
    ]
    return torch.stack([grid[order] for order in orders])[:, None]


def hidden(masker: Masker, t: float, **law: object) -> Tensor:
    """bool[K, POINTS]: what every view hides of a row that is eligible everywhere."""
    eligible = torch.ones(1, POINTS, dtype=torch.bool)
    views = RateLaw(masker, EPSILON, **law).draw(  # type: ignore[arg-type]
        np.array([t]), grid_noise(masker), eligible, eligible
    )
    assert (views.predicted == views.hidden).all()
    return views.hidden[:, 0]


def share(mask: Tensor) -> float:
    return mask.double().mean().item()


def alpha(t: float) -> float:
    return (1 - EPSILON) * t + EPSILON


@pytest.mark.parametrize("masker", MASKERS, ids=repr)
@given(rates)
@settings(max_examples=40)
def test_every_view_masks_with_the_probability_of_its_rate(masker: Masker, t: float):
    views = hidden(masker, t)
    of_view = [t, 1 - t] if isinstance(masker, ComplementMasker) else [t] * masker.views
    assert len(views) == masker.views
    for view, rate in zip(views, of_view, strict=True):
        assert share(view) == pytest.approx(alpha(rate), abs=1.01 * CELL)


@given(rates)
def test_mirror_masks_twice_only_what_two_complements_must_share(t: float):
    """2q - 1 above one half and nothing below; independent views would share q² of the tokens."""
    first, second = hidden(MirrorMasker(), t)
    assert share(first & second) == pytest.approx(max(0.0, 2 * alpha(t) - 1), abs=2.01 * CELL)
    assert share(~first & ~second) == pytest.approx(max(0.0, 1 - 2 * alpha(t)), abs=2.01 * CELL)


@given(rates)
def test_views_of_their_own_noise_share_the_square(t: float):
    first, second, third = hidden(IndependentMasker(3), t)
    for one, other in ((first, second), (first, third), (second, third)):
        assert share(one & other) == pytest.approx(alpha(t) ** 2, abs=0.02)


@given(rates)
def test_two_views_of_a_rotation_have_the_joint_law_of_mirror(t: float):
    def joint(views: Tensor) -> list[float]:
        return [
            share((views[0] == one) & (views[1] == other))
            for one, other in product([True, False], repeat=2)
        ]

    mirrored = joint(hidden(MirrorMasker(), t))
    np.testing.assert_allclose(joint(hidden(RotationMasker(2), t)), mirrored, atol=2.01 * CELL)


@given(st.integers(2, 6), rates)
def test_rotated_views_cover_every_token_equally_often(views: int, t: float):
    """K views cover floor(Kq) or one more: at q <= 1/K none twice."""
    times = hidden(RotationMasker(views), t).sum(0)
    assert times.min() >= np.floor(views * alpha(t) - views * CELL)
    assert times.max() <= np.ceil(views * alpha(t) + views * CELL)
    if alpha(t) <= 1 / views - CELL:
        assert times.max() <= 1


@given(rates)
def test_complementary_views_cover_everything_and_share_exactly_epsilon(t: float):
    first, second = hidden(ComplementMasker(), t)
    assert (first | second).all()
    assert share(first & second) == pytest.approx(EPSILON, abs=1.01 * CELL)


@pytest.mark.parametrize("kind", ["raised", "exact"])
@pytest.mark.parametrize("masker", MASKERS, ids=repr)
@given(t=rates, delta=st.floats(0.01, 0.99))
@settings(max_examples=20)
def test_delimiters_are_masked_more_often_in_every_view(
    masker: Masker, kind: str, t: float, delta: float
):
    views = hidden(masker, t, delimiter_rates=kind, delta=delta)
    of_view = [t, 1 - t] if isinstance(masker, ComplementMasker) else [t] * masker.views
    for view, rate in zip(views, of_view, strict=True):
        q = alpha(rate)
        higher = min(q + delta, 1.0) if kind == "raised" else q + delta * (1 - q)
        assert share(view) == pytest.approx(higher, abs=1.01 * CELL)


@pytest.mark.parametrize("kind", ["raised", "exact"])
def test_only_delimiters_of_the_response_are_masked_more_often(kind: str):
    """Three thirds: a plain token, a delimiter of the response, one of the prompt."""
    third = POINTS // 3
    eligible, marked = torch.zeros(2, 1, POINTS, dtype=torch.bool)
    eligible[:, : 2 * third] = marked[:, third:] = True
    noise = torch.linspace(0, 1, third, dtype=torch.float64).repeat(4)[None, None, :POINTS]
    law = RateLaw(IndependentMasker(), EPSILON, kind, 0.2)  # type: ignore[arg-type]
    mask = law.draw(np.array([0.5]), noise, eligible, marked).hidden[0, 0]
    higher = {"raised": 0.7, "exact": 0.6}[kind]
    assert share(mask[:third]) == pytest.approx(0.5, abs=2e-3)
    assert share(mask[third : 2 * third]) == pytest.approx(higher, abs=2e-3)
    assert not mask[2 * third :].any()


@given(rates, st.floats(0.01, 0.99))
def test_likelihood_ratios_of_exact_delimiters_average_to_one(t: float, delta: float):
    """Over all masks of two tokens and a delimiter, after a prompt with a delimiter of its own."""
    law = RateLaw(IndependentMasker(), EPSILON, "exact", delta)
    marked = torch.tensor([[True, False, True, False]]).expand(8, -1)
    eligible = torch.tensor([[False, True, True, True]]).expand(8, -1)
    q = alpha(t) + delta * (1 - alpha(t)) * marked[0].double()
    masks = torch.tensor([(False, *mask) for mask in product([True, False], repeat=3)])
    noise = torch.where(masks, q / 2, (1 + q) / 2)[None]
    drawn = law.draw(np.full(8, t), noise, eligible, marked)
    assert (drawn.hidden[0] == masks)[:, q < 1].all()
    ratio = drawn.coefficients[0, :, 0] * alpha(t)
    probability = torch.where(drawn.hidden[0], q, 1 - q)[:, 1:].prod(-1)
    assert (probability * ratio).sum().item() == pytest.approx(1)
    assert (probability * ratio**2).sum().item() <= 1 / (1 - delta) + 1e-9


@pytest.mark.parametrize(("n", "k"), [(4, 1), (4, 2), (5, 3), (4, 4)])
def test_every_subset_of_a_count_is_equally_likely(n: int, k: int):
    """Only the order of the response's noise counts, and all orders are equally likely."""
    orders = torch.tensor(list(permutations(range(n))), dtype=torch.float64)
    noise = torch.cat([torch.zeros(len(orders), 1), (orders + 0.5) / n], dim=1)
    eligible = torch.ones(len(orders), n + 1, dtype=torch.bool)
    eligible[:, 0] = False
    t = np.full(len(orders), (k - 0.5) / n)
    masks = CountLaw().draw(t, noise[None], eligible, None).hidden[0]
    times = Counter(map(tuple, masks[:, 1:].tolist()))
    assert not masks[:, 0].any()
    assert len(times) == comb(n, k)
    assert all(sum(subset) == k for subset in times)
    assert set(times.values()) == {len(orders) // comb(n, k)}


def test_views_of_a_count_are_subsets_of_their_own():
    orders = torch.tensor(list(permutations(range(3))), dtype=torch.float64)
    pairs = torch.stack([orders.repeat_interleave(6, 0), orders.repeat(6, 1)]) / 3
    eligible = torch.ones(36, 3, dtype=torch.bool)
    masks = CountLaw(2).draw(np.full(36, 0.5), pairs, eligible, None).hidden
    together = Counter(tuple(pair.ravel().tolist()) for pair in masks.transpose(0, 1).numpy())
    assert set(together.values()) == {4}
    assert len(together) == 9


@pytest.mark.parametrize("n", [1, 3, 7, 50])
@pytest.mark.parametrize(
    "time",
    [UniformTime(), ImportanceTime(fitted_density()), ImportanceTime(TimeDensity(np.arange(1, 9)))],
    ids=["uniform", "fitted", "steep"],
)
def test_a_count_comes_as_often_as_the_law_says_and_its_weight_makes_up_for_it(
    time: TimeSampler, n: int
):
    points = 200_000
    t = time((np.arange(points) + 0.5) / points)
    lengths = np.full(points, n)
    counts = CountLaw.counts(t, lengths)
    found = np.bincount(counts, minlength=n + 1)[1:] / points
    edges = np.arange(n + 1) / n
    law = time.mass(edges[:-1], edges[1:])
    assert law.sum() == pytest.approx(1)
    np.testing.assert_allclose(found, law, atol=2 / points)
    weight = CountLaw().weight(time, t, lengths)
    assert weight.mean() == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(weight, 1 / (n * law[counts - 1]), rtol=1e-12)


@pytest.mark.parametrize(
    "time",
    [
        UniformTime(),
        ClippedTime(0.3, 0.8),
        ImportanceTime(fitted_density()),
        ImportanceTime(TimeDensity(np.arange(1, 9))),
    ],
    ids=["uniform", "clipped", "fitted", "steep"],
)
@given(rates, rates)
@settings(max_examples=20)
def test_the_mass_of_an_interval_is_how_often_the_rate_falls_into_it(
    time: TimeSampler, one: float, other: float
):
    low, high = min(one, other), max(one, other)
    t = time((np.arange(POINTS) + 0.5) / POINTS)
    found = ((low <= t) & (t < high)).mean()
    mass = time.mass(np.array(low), np.array(high))
    assert found == pytest.approx(float(mass), abs=2.01 * CELL)
