"""Densities of the mask rate: sampled exactly, weighted exactly, bounded by mixing."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from tiny import fitted_density

from raymdm.diffusion import TimeDensity, fit_density
from raymdm.diffusion.density import (
    CELLS,
    density_curve,
    epr_density,
    power_density,
    tabulated_density,
)
from raymdm.diffusion.epr import EPRFit
from raymdm.diffusion.time import ImportanceTime

KINDS = ("epr", "epr_pole", "tabulated")
shapes = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=60).map(np.array)
moments = st.lists(st.floats(0.01, 100.0), min_size=8, max_size=24).map(np.array)
common = settings(max_examples=60, deadline=None)


def middles(cells: int) -> np.ndarray:
    return (np.arange(cells) + 0.5) / cells


def fitted(kind: str, curve: np.ndarray) -> TimeDensity:
    """Fitted to any curve at all, as a probe of few draws may look."""
    return fit_density(middles(len(curve)), curve, kind=kind, starts=1)


densities = st.one_of(
    shapes.map(TimeDensity),
    st.floats(0.0, 0.2).map(power_density),
    st.builds(fitted, st.sampled_from(KINDS), moments),
)


@common
@given(densities)
def test_it_integrates_to_one(density: TimeDensity):
    cells = len(density.cells)
    assert density.pdf(middles(cells)).mean() == pytest.approx(1.0, abs=1e-12)
    assert density.cdf(np.array([0.0, 1.0])).tolist() == [0.0, 1.0]


@common
@given(densities, st.integers(0, 3))
def test_draws_are_unbiased_for_any_power_of_the_rate(density: TimeDensity, power: int):
    """E over u of weight · t^k = 1/(k+1); with k = 0 this is E[w] = 1."""
    time = ImportanceTime(density)
    edges = density.cdf(np.linspace(0, 1, len(density.cells) + 1))
    nodes, shares = np.polynomial.legendre.leggauss(2)
    widths = np.diff(edges)[:, None]
    t = time((edges[:-1, None] + widths * (nodes + 1) / 2).ravel())
    share = (widths * shares / 2).ravel()
    assert (share * time.weight(t) * t**power).sum() == pytest.approx(1 / (power + 1), abs=1e-6)


@common
@given(densities, st.lists(st.floats(0, 1), min_size=2, max_size=40))
def test_the_inverse_is_monotone_and_inverts(density: TimeDensity, uniforms: list[float]):
    u = np.sort(uniforms)
    t = density.icdf(u)
    assert (np.diff(t) >= 0).all()
    assert t.min() >= 0
    assert t.max() <= 1
    np.testing.assert_allclose(density.cdf(t), u, atol=1e-9)


@common
@given(densities)
def test_a_weight_is_one_over_the_density_that_is_drawn_from(density: TimeDensity):
    cells = len(density.cells)
    time, low = ImportanceTime(density), np.arange(cells) / cells
    drawn = time.mass(low, low + 1 / cells) * cells
    np.testing.assert_allclose(time.weight(middles(cells)) * drawn, 1.0, rtol=1e-8)
    np.testing.assert_array_equal(time.weight(middles(cells)), 1 / density.pdf(middles(cells)))


@common
@given(shapes, st.floats(0.01, 1.0))
def test_mixing_bounds_every_weight(cells: np.ndarray, share: float):
    mixed = TimeDensity(cells).mixed(share)
    assert mixed.weight(np.linspace(0, 1, 501)).max() <= 1 / share * (1 + 1e-12)
    assert mixed.cells.mean() == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(
        mixed.cells, (1 - share) * TimeDensity(cells).cells + share, rtol=1e-12
    )


@common
@given(shapes)
def test_a_saved_density_is_read_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, cells: np.ndarray
):
    """A resumed run reads the file: a last digit that moved would move its mask rates."""
    path = tmp_path_factory.mktemp("density") / "density.json"
    density = TimeDensity(cells, {"kind": "made up", "kl": 0.25})
    density.save(path)
    again = TimeDensity.load(path)
    np.testing.assert_array_equal(again.cells, density.cells)
    assert again.origin == density.origin


@pytest.mark.parametrize("kind", KINDS)
def test_a_fitted_density_keeps_its_probe_and_has_the_asked_mixture(tmp_path: Path, kind: str):
    t = middles(16)
    density = fit_density(t, 1 + 1 / t, kind=kind, starts=1, mixing=0.1, epsilon=1e-2)
    assert density.cells.shape == (CELLS,)
    assert density.weight(t).max() <= 10
    assert density.origin["kind"] == kind
    assert density.origin["mixed_with_uniform"] == 0.1
    assert density.origin["probe_t"] == t.tolist()
    assert density.origin["probe_root_second_moment"] == (1 + 1 / t).tolist()
    assert ("kl" in density.origin) == ("parameters" in density.origin) == (kind != "tabulated")
    assert density.origin.get("epsilon") == (1e-2 if kind == "epr_pole" else None)
    assert density.pdf(np.array(0.01)) > 2 * density.pdf(np.array(0.6))
    density.save(tmp_path / "density.json")
    assert TimeDensity.load(tmp_path / "density.json").origin == density.origin


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind cosine"):
        fit_density(middles(16), np.ones(16), kind="cosine")


def test_the_pole_is_averaged_over_every_cell():
    """Within the first, alpha doubles; the midpoint would be 2% low."""
    parameters = {
        "a": 1.0,
        "b": 0.1,
        "D": 0.1,
        "r": 2.0,
        "q": 1.0,
        "kappa": 0.1,
        "m": 1.0,
        "c": 1.0,
    }
    fit = EPRFit(parameters, 0.0, np.array([0.1, 1.0]), np.ones(2), pole_epsilon=1e-3)
    density = epr_density(fit)
    whole = quad(lambda t: float(fit.curve(t)), 0, 1, limit=500, epsabs=1e-12)[0]
    for cell in (0, 1, 10, CELLS - 1):
        part = quad(lambda t: float(fit.curve(t)), cell / CELLS, (cell + 1) / CELLS)[0]
        assert density.cells[cell] == pytest.approx(part * CELLS / whole, rel=1e-6)
    assert density.cells[0] > 1.01 * fit.curve(np.array(0.5 / CELLS)) / whole


def test_without_a_pole_the_cells_are_the_curve_at_their_midpoints():
    parameters = {"a": 2.0, "b": 1.5, "D": 0.3, "r": 4.0, "q": 6.0, "kappa": 0.4, "m": 2.0}
    fit = EPRFit(parameters, 0.0, np.array([0.1, 1.0]), np.ones(2))
    curve = fit.curve(middles(CELLS))
    np.testing.assert_allclose(epr_density(fit).cells, curve / curve.mean(), rtol=1e-12)


def test_a_fitted_curve_is_constant_beyond_the_last_rate():
    """Steep exponents can fit the noise of a probe by a spike of t^r above all its rates."""
    parameters = {"a": 1.0, "b": 0.1, "D": 1.0, "r": 2.0, "q": 1.0, "kappa": 9.0, "m": 30.0}
    fit = EPRFit(parameters, 0.0, np.array([0.1, 0.9]), np.ones(2))
    density = epr_density(fit)
    beyond = density.cells[int(0.9 * CELLS) :]
    np.testing.assert_allclose(beyond, beyond[0], rtol=1e-12)
    assert beyond[0] >= density.cells.max()


def test_a_tabulated_density_is_linear_between_the_rates_and_constant_beyond():
    t, moment = np.array([0.2, 0.4, 0.8]), np.array([3.0, 0.0, 5.0])
    density = tabulated_density(t, moment)
    at = np.array([0.0505, 0.1995, 0.3005, 0.4005, 0.6005, 0.8005, 0.9995])
    raised = 3.0  # The zero becomes the least positive value.
    wanted = [3.0, 3.0, 3.0, raised, 4.0, 5.0, 5.0]
    np.testing.assert_allclose(density.pdf(at) / density.pdf(at[0]) * 3.0, wanted, rtol=2e-3)
    assert density.origin["probe_root_second_moment"] == moment.tolist()


@pytest.mark.parametrize(
    ("t", "moment", "reason"),
    [
        ([0.2, 0.1], [1.0, 1.0], "increasing"),
        ([0.1, 0.2], [1.0], "one moment for each"),
        ([0.1, 0.2], [1.0, -1.0], "negative"),
        ([0.1, 0.2], [1.0, np.nan], "finite"),
        ([0.1, 0.2], [0.0, 0.0], "positive, finite"),
    ],
)
def test_a_probe_that_cannot_be_tabulated_is_refused(
    t: list[float], moment: list[float], reason: str
):
    with pytest.raises(ValueError, match=reason):
        tabulated_density(np.array(t), np.array(moment))


@pytest.mark.parametrize("epsilon", [0.0, 1e-6, 1e-3, 0.1])
def test_the_power_density_is_exact_in_every_cell_and_bounds_its_weights(epsilon: float):
    density = power_density(epsilon)
    # Substituting t = v², so that the quadrature meets no pole where epsilon is 0.
    edges = np.sqrt(np.arange(CELLS + 1) / CELLS)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    v = edges[:-1, None] + np.diff(edges)[:, None] * (nodes + 1) / 2
    inside = 2 * v / np.sqrt((1 - epsilon) * v**2 + epsilon)
    integral = (inside @ weights) * np.diff(edges) / 2
    np.testing.assert_allclose(density.cells, integral / integral.sum() * CELLS, rtol=1e-6)
    t = np.linspace(0, 1, 4001)
    assert density.weight(t).max() < 2 / (1 + np.sqrt(epsilon))
    assert density.weight(t).max() > 0.999 * 2 / (1 + np.sqrt(epsilon))


def test_the_curve_of_a_target_is_the_whole_moment_or_what_stratification_leaves():
    second, mean_square = np.array([9.0, 5.0, 4.0, 4.0]), np.array([5.0, -4.0, 3.99, 7.0])
    np.testing.assert_allclose(density_curve(second, mean_square, "iid"), np.sqrt(second))
    np.testing.assert_allclose(
        density_curve(second, mean_square, "stratified"), [2.0, 3.0, 0.2, 0.2]
    )


def test_the_curve_of_a_target_is_positive_where_nothing_was_masked():
    second = np.array([0.0, 4.0, 9.0])
    for target in ("iid", "stratified"):
        curve = density_curve(second, np.zeros(3), target)
        np.testing.assert_allclose(curve, [2.0, 2.0, 3.0])


def test_samples_follow_the_density():
    density = fitted_density(cells=8)
    u = np.random.default_rng(0).random(200_000)
    counts = np.histogram(density.icdf(u), bins=8, range=(0, 1))[0] / len(u)
    np.testing.assert_allclose(counts, density.cells / 8, atol=5e-3)


@pytest.mark.parametrize(
    "cells", [[1.0, 0.0], [1.0, -1.0], [1.0, np.nan], [1.0, np.inf], [[1.0, 2.0]]]
)
def test_cells_that_are_no_density_are_refused(cells: list[float]):
    with pytest.raises(ValueError, match="positive, finite"):
        TimeDensity(np.array(cells))


@pytest.mark.parametrize("content", ["{}", "[1, 2]", '{"cells": [1, null]}', "not json"])
def test_a_file_that_holds_no_density_is_named(tmp_path: Path, content: str):
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"broken\.json|positive, finite"):
        TimeDensity.load(path)
