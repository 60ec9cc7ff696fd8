"""The EMA control variate: worth nothing on average, and moved by the documented rule."""

import json

import numpy as np
import pytest
from tiny import fitted_density

from raymdm.diffusion import TimeDensity
from raymdm.diffusion.control import MovingAverage
from raymdm.diffusion.time import ImportanceTime, TimeSampler, UniformTime


def trained(bins: int, decay: float = 0.9, coefficient: float = 0.7) -> MovingAverage:
    """One that has seen a few steps; with many bins, not all of them."""
    control = MovingAverage(bins, decay, coefficient)
    random = np.random.default_rng(0)
    for _ in range(5):
        t = random.random(8)
        control.update(t, 3 / (t + 0.1) + random.random(8), np.ones(8))
    return control


@pytest.mark.parametrize("bins", [1, 3, 20])
@pytest.mark.parametrize(
    "time",
    [UniformTime(), ImportanceTime(fitted_density()), ImportanceTime(TimeDensity(np.arange(1, 8)))],
    ids=["uniform", "fitted", "steep"],
)
def test_the_offsets_are_zero_on_average_over_the_rate(bins: int, time: TimeSampler):
    """Constant between the edges of bins and of the density's cells: the midpoints are exact."""
    control = trained(bins)
    cells = len(time.density.cells) if isinstance(time, ImportanceTime) else 1
    edges = np.unique([*np.linspace(0, 1, bins + 1), *np.linspace(0, 1, cells + 1)])
    middle = (edges[1:] + edges[:-1]) / 2
    probability = time.mass(edges[:-1], edges[1:])
    offsets = control.offsets(middle, time.weight(middle), np.full(len(middle), 3.0))
    assert probability @ offsets == pytest.approx(0, abs=1e-12)
    assert bins == 1 or np.abs(offsets).max() > 0.1


def test_an_offset_is_the_mean_of_the_averages_less_the_weighted_one_of_its_bin():
    control = MovingAverage(2, 0.9, 0.5)
    control.update(np.array([0.2, 0.7]), np.array([4.0, 1.0]), np.ones(2))
    t, weight, denominators = np.array([0.3, 0.9]), np.array([1.5, 0.5]), np.array([1.0, 6.0])
    wanted = [0.5 * (2.5 - 1.5 * 4.0), 0.5 * (2.5 - 0.5 * 1.0) * 6]
    np.testing.assert_allclose(control.offsets(t, weight, denominators), wanted)


def test_the_reported_loss_scatters_less_around_the_same_mean():
    """What is left is the noise within a rate and the slope within a bin."""
    control, random = MovingAverage(20, 0.9, 1.0), np.random.default_rng(1)
    ones, plain, steadied = np.ones(16), [], []
    for step in range(600):
        t = random.random(16)
        losses = 5 * t**2 + 0.3 * random.standard_normal(16)
        if step >= 100:
            plain.append(losses.mean())
            steadied.append((losses + control.offsets(t, ones, ones)).mean())
        control.update(t, losses, ones)
    assert np.mean(steadied) == pytest.approx(5 / 3, abs=0.02)
    assert np.var(steadied) < 0.2 * np.var(plain)


def test_before_its_first_step_it_changes_nothing():
    offsets = MovingAverage(4, 0.9, 1.0).offsets(np.array([0.1, 0.9]), np.ones(2), np.ones(2))
    assert (offsets == 0).all()


def test_the_first_value_of_a_bin_is_taken_whole_and_later_ones_by_their_share():
    control = MovingAverage(4, 0.75, 1.0)
    control.update(np.array([0.1, 0.2, 0.6]), np.array([2.0, 4.0, 8.0]), np.ones(3))
    assert control.values.tolist() == [3.0, 0.0, 8.0, 0.0]
    assert control.seen.tolist() == [True, False, True, False]
    control.update(np.array([0.05, 0.3]), np.array([7.0, 5.0]), np.ones(2))
    assert control.values.tolist() == [0.75 * 3 + 0.25 * 7, 5.0, 8.0, 0.0]


def test_losses_are_taken_per_unit_of_their_denominator():
    control = MovingAverage(1, 0.9, 1.0)
    control.update(np.array([0.5, 0.5]), np.array([12.0, 4.0]), np.array([3.0, 2.0]))
    assert control.values.tolist() == [3.0]


def test_the_ends_of_the_interval_are_in_the_first_and_last_bin():
    control = MovingAverage(5, 0.9, 1.0)
    control.update(np.array([0.0, 1.0]), np.array([1.0, 2.0]), np.ones(2))
    assert control.values.tolist() == [1.0, 0.0, 0.0, 0.0, 2.0]


def test_a_checkpoint_brings_back_the_same_averages_to_the_last_digit():
    control, fresh = trained(20), MovingAverage(20, 0.9, 0.7)
    assert not control.seen.all()
    fresh.restore(json.loads(json.dumps(control.state())))
    np.testing.assert_array_equal(fresh.values, control.values)
    t, losses = np.linspace(0, 1, 30), np.linspace(5, 1, 30)
    for one in (control, fresh):
        one.update(t, losses, np.ones(30))
    np.testing.assert_array_equal(fresh.values, control.values)
