"""Densities of the mask rate: sampled exactly, weighted exactly, bounded by mixing."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import fitted_density

from raymdm.diffusion import TimeDensity, fit_density
from raymdm.diffusion.density import CELLS
from raymdm.diffusion.time import ImportanceTime

shapes = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=60).map(np.array)
common = settings(max_examples=60, deadline=None)


def middles(cells: int) -> np.ndarray:
    return (np.arange(cells) + 0.5) / cells


@common
@given(shapes)
def test_it_integrates_to_one(cells: np.ndarray):
    density = TimeDensity(cells)
    assert density.pdf(middles(len(cells))).mean() == pytest.approx(1.0, abs=1e-12)
    assert density.cdf(np.array([0.0, 1.0])).tolist() == [0.0, 1.0]


@common
@given(shapes, st.integers(0, 3))
def test_draws_are_unbiased_for_any_power_of_the_rate(cells: np.ndarray, power: int):
    """E over u of weight · t^k = 1/(k+1); with k = 0 this is E[w] = 1."""
    density = TimeDensity(cells)
    edges = density.cdf(np.linspace(0, 1, len(cells) + 1))
    nodes, shares = np.polynomial.legendre.leggauss(2)
    widths = np.diff(edges)[:, None]
    draw = ImportanceTime(density)((edges[:-1, None] + widths * (nodes + 1) / 2).ravel())
    share = (widths * shares / 2).ravel()
    assert (share * draw.weight * draw.t**power).sum() == pytest.approx(1 / (power + 1), abs=1e-6)


@common
@given(shapes, st.lists(st.floats(0, 1), min_size=2, max_size=40))
def test_the_inverse_is_monotone_and_inverts(cells: np.ndarray, uniforms: list[float]):
    density = TimeDensity(cells)
    u = np.sort(uniforms)
    t = density.icdf(u)
    assert (np.diff(t) >= 0).all()
    assert t.min() >= 0
    assert t.max() <= 1
    np.testing.assert_allclose(density.cdf(t), u, atol=1e-9)


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


def test_a_fitted_density_keeps_its_probe_and_has_the_asked_mixture(tmp_path: Path):
    t = middles(16)
    density = fit_density(t, 1 + 1 / t, starts=1, mixing=0.1)
    assert density.cells.shape == (CELLS,)
    assert density.weight(t).max() <= 10
    assert density.origin["mixed_with_uniform"] == 0.1
    assert density.origin["probe_t"] == t.tolist()
    assert density.pdf(np.array(0.01)) > 2 * density.pdf(np.array(0.6))
    density.save(tmp_path / "density.json")
    assert TimeDensity.load(tmp_path / "density.json").origin == density.origin


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
