"""Statistics of the training stream: parts of the variance, the adaptive density, its weights.

The synthetic streams have a loss that is constant over every bin but for noise of known variance,
so the parts that should be found are known exactly.
"""

import json
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from tiny import fitted_density

from raymdm.diffusion.density import CELLS, TimeDensity, power_density
from raymdm.diffusion.stream import LiveParts, StreamMoments, drift, effective_sample_size
from raymdm.diffusion.time import ImportanceTime, TimeSampler, UniformTime

BINS = 6
EDGES = StreamMoments(BINS, 0.0).edges / CELLS
WIDTHS = np.diff(EDGES)
LEVELS = np.array([9.0, 4.0, 3.0, 2.0, 2.5, 5.0])
MIDDLES = (EDGES[:-1] + EDGES[1:]) / 2
FACTORS = np.array([2.0, 0.5, 1.0, 1.5, 0.4, 1.2])
ON_BINS = TimeDensity(np.repeat(FACTORS, np.diff(StreamMoments(BINS, 0.0).edges)))
TIMES = {"uniform": UniformTime(), "importance": ImportanceTime(ON_BINS)}

Step = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Source:
    """Losses level(t) + row + view, the row's and each view's own noise with these deviations."""

    time: TimeSampler
    views: int = 1
    row: float = 0.0
    view: float = 0.0
    levels: tuple[float, ...] = tuple(LEVELS)

    def steps(self, count: int, rows: int, seed: int = 0) -> list[Step]:
        random = np.random.default_rng(seed)
        return [self.step(random, rows) for _ in range(count)]

    def step(self, random: np.random.Generator, rows: int) -> Step:
        t = self.time(random.random(rows))
        level = np.array(self.levels)[np.searchsorted(EDGES, t, side="right") - 1]
        noise = self.row * random.standard_normal(rows)
        view = self.view * random.standard_normal((self.views, rows))
        return t, self.time.weight(t), level + noise + view

    def parts(self) -> LiveParts:
        """Of z = weight · mean over views, t drawn from the source's own law."""
        share = self.time.mass(EDGES[:-1], EDGES[1:])
        weight = self.time.weight(MIDDLES)
        means = weight * np.array(self.levels)
        rates = share @ (means - share @ means) ** 2
        view, row = self.view**2 / self.views, self.row**2
        square = share @ weight**2
        if self.views == 1:
            return LiveParts(np.nan, rates, square * (row + view))
        return LiveParts(square * view, rates, square * row)


def taken_in(steps: list[Step], forgetting: float = 1.0, bins: int = BINS) -> StreamMoments:
    moments = StreamMoments(bins, forgetting)
    for step in steps:
        moments.update(*step)
    return moments


def plain_parts(steps: list[Step], forgetting: float) -> LiveParts:
    """The same from all rows kept, each with the weight of its age: analysis of variance."""
    ages = range(len(steps) - 1, -1, -1)
    worth = np.concatenate(
        [np.full(len(step[0]), forgetting**age) for step, age in zip(steps, ages, strict=True)]
    )
    t = np.concatenate([step[0] for step in steps])
    z = np.concatenate([step[1] * step[2].mean(0) for step in steps])
    between = np.concatenate(
        [step[1] ** 2 * step[2].var(0, ddof=1) / len(step[2]) for step in steps]
    )
    inside, view, means, shares, errors = [], [], [], [], []
    for low, high in pairwise(EDGES):
        here = (low <= t) & (t < high)
        a = worth[here] / worth[here].sum()
        mean = a @ z[here]
        variance = a @ (z[here] - mean) ** 2 / (1 - a @ a)
        means.append(mean)
        inside.append(variance)
        errors.append(variance * (a @ a))
        view.append(a @ between[here])
        shares.append(worth[here].sum() / worth.sum())
    share, mean = np.array(shares), np.array(means)
    spread = share @ (mean - share @ mean) ** 2
    rates = spread - share @ ((1 - share) * np.array(errors))
    views = share @ np.array(view)
    return LiveParts(views, rates, share @ np.array(inside) - views)


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("time", TIMES)
def test_the_parts_of_a_known_stream_are_found(time: str, views: int):
    source = Source(TIMES[time], views, row=1.5, view=2.0)
    found = taken_in(source.steps(1500, 64), forgetting=0.999).parts()
    np.testing.assert_allclose(found, source.parts(), rtol=0.06)


@pytest.mark.parametrize("time", TIMES)
def test_the_parts_are_right_on_average_over_short_streams(time: str):
    """64 rows: the scatter of the bins' means must not pass for an effect of the rate."""
    weight = TIMES[time].weight(MIDDLES)
    level = Source(TIMES[time], 2, row=3.0, view=2.0, levels=tuple(4 / weight))
    assert level.parts().rates == pytest.approx(0, abs=1e-12)
    found = [taken_in(level.steps(4, 64, seed), 0.8).parts() for seed in range(600)]
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(mean - np.array(level.parts())) < 4 * error).all()
    assert error[1] < 0.02 * level.parts().rows


@pytest.mark.parametrize("forgetting", [1.0, 0.7])
@pytest.mark.parametrize("time", TIMES)
def test_the_sums_give_the_analysis_of_variance_of_all_rows_kept(time: str, forgetting: float):
    steps = Source(TIMES[time], 2, row=1.0, view=2.0).steps(6, 48)
    found = taken_in(steps, forgetting).parts()
    np.testing.assert_allclose(found, plain_parts(steps, forgetting), rtol=1e-9)


def test_with_one_view_the_masks_are_part_of_the_rest():
    step = Source(UniformTime(), 2, row=1.0, view=2.0).step(np.random.default_rng(0), 200)
    t, weight, losses = step
    both = taken_in([step]).parts()
    one = taken_in([(t, weight, losses.mean(0, keepdims=True))]).parts()
    assert np.isnan(one.views)
    assert one.rates == pytest.approx(both.rates)
    assert one.rows == pytest.approx(both.rows + both.views)


def test_there_are_no_parts_before_two_bins_hold_two_rows_each():
    moments = StreamMoments(BINS, 0.9)
    one = np.ones(1)
    assert np.isnan(moments.parts()).all()
    for t in (0.2, 0.9, 0.2):
        moments.update(np.array([t]), one, np.ones((2, 1)))
        assert np.isnan(moments.parts()).all()
    moments.update(np.array([0.9]), one, np.ones((2, 1)))
    np.testing.assert_allclose(moments.parts(), 0, atol=1e-12)


@pytest.mark.parametrize("bins", [2, 24, 200])
def test_bins_are_whole_cells_finer_towards_zero_and_cover_everything(bins: int):
    edges = StreamMoments(bins, 0.9).edges
    assert (edges[0], edges[-1]) == (0, CELLS)
    widths = np.diff(edges)
    assert (widths > 0).all()
    assert (np.diff(widths) >= -1).all()
    assert widths[-1] > widths[0]
    assert len(widths) <= bins


def test_both_ends_of_the_interval_have_a_bin():
    moments = taken_in([(np.array([0.0, 1.0]), np.ones(2), np.ones((1, 2)))])
    counts = moments.sums[0]
    assert (counts[0], counts[-1], counts.sum()) == (1, 1, 2)


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("target", ["iid", "stratified"])
def test_the_density_follows_the_root_of_what_its_target_asks_for(time: str, target: str):
    """Whatever rates it was learnt from: sqrt(g² + v), or sqrt(v) with a twentieth mixed in."""
    source = Source(TIMES[time], 2, row=1.5, view=1.0)
    density = taken_in(source.steps(800, 64)).density(target, 0.05)  # type: ignore[arg-type]
    assert density is not None
    variance = 1.5**2 + 1.0 / 2
    root = np.sqrt(variance + (LEVELS**2 if target == "iid" else 0) * np.ones(BINS))
    wanted = 0.95 * root / (WIDTHS @ root) + 0.05
    np.testing.assert_allclose(density.pdf(MIDDLES), wanted, rtol=0.06)
    assert density.origin["target"] == target


def test_it_would_lower_the_variance_of_the_very_stream_that_it_was_learnt_from():
    source = Source(UniformTime(), row=1.0)
    density = taken_in(source.steps(200, 32)).density("iid", 0.0)
    assert density is not None
    before, after = source.parts(), Source(ImportanceTime(density), row=1.0).parts()
    assert after.rates + after.rows < 0.8 * (before.rates + before.rows)


@pytest.mark.parametrize("mixing", [0.05, 0.5])
def test_mixing_bounds_every_weight(mixing: float):
    steep = Source(UniformTime(), row=0.1, levels=(1e4, 1, 1, 1, 1, 1e-3))
    density = taken_in(steep.steps(50, 64)).density("iid", mixing)
    assert density is not None
    weights = 1 / density.cells
    assert 0.99 / mixing < weights.max() < 1 / mixing


def test_a_loss_without_noise_still_gives_a_stratified_density():
    """At least 1% of the second moment counts as noise."""
    density = taken_in(Source(UniformTime()).steps(50, 64)).density("stratified", 0.0)
    assert density is not None
    found = density.pdf(MIDDLES)
    np.testing.assert_allclose(found, LEVELS / (WIDTHS @ LEVELS), rtol=1e-6)


def test_there_is_no_density_before_most_bins_were_seen():
    assert StreamMoments(BINS, 0.9).density("iid", 0.05) is None
    half = taken_in([(MIDDLES[3:], np.ones(3), np.ones((1, 3)))])
    assert half.density("iid", 0.05) is None
    broken = taken_in([(MIDDLES, np.ones(BINS), np.full((1, BINS), np.nan))])
    assert broken.density("iid", 0.05) is None


def test_a_bin_without_any_loss_lies_between_its_neighbours():
    """Near t = 0 most masks are empty; a density of 0 there would never look again."""
    losses = np.array([[0.0, 8.0, 0.0, 2.0, 1.0, 1.0]])
    density = taken_in([(MIDDLES, np.ones(BINS), losses)]).density("iid", 0.0)
    assert density is not None
    found = density.pdf(MIDDLES) / density.pdf(MIDDLES[-1:])
    np.testing.assert_allclose(found, [8, 8, 4, 2, 1, 1], rtol=1e-9)


def test_a_checkpoint_brings_back_the_same_sums_to_the_last_digit():
    source = Source(TIMES["importance"], 2, row=1.0, view=1.0)
    moments, fresh = taken_in(source.steps(20, 32), 0.9), StreamMoments(BINS, 0.9)
    fresh.restore(json.loads(json.dumps(moments.state())))
    assert fresh.parts() == moments.parts()
    (later,) = source.steps(1, 32, seed=5)
    for one in (moments, fresh):
        one.update(*later)
    np.testing.assert_array_equal(fresh.sums, moments.sums)
    assert drift(fresh.density("iid", 0.1), moments.density("iid", 0.1)) == 0  # type: ignore


def test_the_effective_sample_size_is_the_share_that_the_weights_leave():
    assert effective_sample_size(np.ones(7)) == 1.0
    assert effective_sample_size(np.array([1.0, 3.0])) == pytest.approx(0.8)
    assert effective_sample_size(np.array([6.0, 0.0, 0.0])) == pytest.approx(1 / 3)
    rates = power_density(1e-3)
    t = rates.icdf((np.arange(10_000) + 0.5) / 10_000)
    exact = 1 / (1 / rates.cells).mean()
    assert effective_sample_size(rates.weight(t)) == pytest.approx(exact, rel=1e-3)


def test_drift_is_the_total_variation_distance():
    one, other = TimeDensity(np.array([1.5, 0.5])), TimeDensity(np.array([0.5, 1.5]))
    assert drift(one, other) == drift(other, one) == 0.5
    assert drift(one, one) == 0.0
    far = TimeDensity(np.array([1e-9, 1.0])), TimeDensity(np.array([1.0, 1e-9]))
    assert drift(*far) == pytest.approx(1.0)
    assert 0 < drift(fitted_density(), fitted_density(mixing=0.5)) < 1
