"""The EPR fit: its gradient, its seeds, and the same curves as the published fit."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from tiny import FIXTURES

from raymdm.diffusion.epr import EPRFit, _cross_entropy, _trapezoid_weights, fit_epr

GRID = (np.arange(40) + 0.5) / 40
EPSILON = 1e-3
PUBLISHED = FIXTURES / "epr" / "epr_fit.json"
needs_fixtures = pytest.mark.skipif(not PUBLISHED.is_file(), reason="no published fits here")


def published(name: str) -> dict[str, Any]:
    curves = json.loads(PUBLISHED.read_text())["curves"]
    return next(curve for curve in curves if curve["name"] == name)


def curve_names() -> list[str]:
    if not PUBLISHED.is_file():
        return ["any"]
    return [curve["name"] for curve in json.loads(PUBLISHED.read_text())["curves"]]


def on_grid(fit: EPRFit) -> np.ndarray:
    curve = fit.curve(fit.t)
    return curve / np.trapezoid(curve, fit.t)


def pole(t: np.ndarray) -> np.ndarray:
    return 1 / ((1 - EPSILON) * t + EPSILON)


@pytest.mark.parametrize("with_pole", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_is_that_of_the_value(seed: int, with_pole: bool):
    random = np.random.default_rng(seed)
    t = np.sort(random.random(25))
    weights = _trapezoid_weights(t)
    target = random.random(25) + 0.1
    target *= weights / (target * weights).sum()
    raw = random.standard_normal(7 + with_pole)
    arguments = (t, target, weights, pole(t) if with_pole else None)
    value, gradient = _cross_entropy(raw, *arguments)
    numeric = approx_fprime(raw, lambda x: _cross_entropy(x, *arguments)[0], 1e-7)
    assert np.isfinite(value)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("with_pole", [False, True])
def test_the_gradient_is_finite_at_both_ends_of_the_interval(with_pole: bool):
    t = np.linspace(0, 1, 20)
    weights = _trapezoid_weights(t)
    raw = np.full(7 + with_pole, 0.3)
    _, gradient = _cross_entropy(raw, t, weights, weights, pole(t) if with_pole else None)
    assert np.isfinite(gradient).all()


@needs_fixtures
@pytest.mark.parametrize("name", curve_names())
def test_it_reaches_the_published_fit(name: str):
    curve = published(name)
    t, w = np.array(curve["t_grid"]), np.array(curve["w"])
    fit = fit_epr(t, w, starts=curve["n_starts"], seed=curve["seed"])
    assert fit.kl <= curve["kl_w_to_p_fit"] + 1e-5
    assert np.trapezoid(abs(on_grid(fit) - curve["p_fit_on_grid"]), t) < 0.01


@needs_fixtures
@pytest.mark.parametrize("name", curve_names())
def test_the_published_parameters_give_the_published_curve_and_kl(name: str):
    curve = published(name)
    t, w = np.array(curve["t_grid"]), np.array(curve["w"])
    p = curve["params"]
    parameters = {"a": p["a"], "b": p["b"], "D": p["A"], "r": p["r"], "q": p["q"]}
    fit = EPRFit({**parameters, "kappa": p["k"], "m": p["m"]}, 0.0, t, w)
    np.testing.assert_allclose(on_grid(fit), curve["p_fit_on_grid"], rtol=1e-9)
    w = w / np.trapezoid(w, t)
    assert np.trapezoid(w * np.log(w / on_grid(fit)), t) == pytest.approx(
        curve["kl_w_to_p_fit"], abs=1e-9
    )


def test_it_recovers_a_curve_of_its_own_family():
    values = {"a": 2.0, "b": 1.5, "D": 0.3, "r": 4.0, "q": 6.0, "kappa": 0.4, "m": 2.0}
    made = EPRFit(values, 0.0, GRID, GRID).curve(GRID)
    fit = fit_epr(GRID, 7 * made, starts=8)
    assert 0 <= fit.kl < 1e-6
    assert np.trapezoid(abs(on_grid(fit) - made / np.trapezoid(made, GRID)), GRID) < 2e-3


def test_with_a_pole_it_recovers_the_noise_of_the_count():
    """E[l²|t] of n equal tokens is 1 + (1 - alpha)/(n alpha): the paper's curve cannot follow."""
    target = np.sqrt(1 + (pole(GRID) - 1) / 5)
    without = fit_epr(GRID, target, starts=8)
    fit = fit_epr(GRID, target, starts=8, pole_epsilon=EPSILON)
    assert 0 <= fit.kl < 1e-9 < 1e-4 < without.kl
    t = np.linspace(0, 1, 101)
    shape, wanted = fit.curve(t), np.sqrt(1 + (pole(t) - 1) / 5)
    np.testing.assert_allclose(shape / shape[50], wanted / wanted[50], rtol=1e-3)
    flat = without.curve(t)
    assert shape[0] / shape[50] > 3 * flat[0] / flat[50]


def test_the_pole_is_one_more_parameter_and_the_curve_stands_on_the_whole_interval():
    target = 1 + np.exp(-8 * GRID) + GRID**6
    without = fit_epr(GRID, target, starts=3)
    fit = fit_epr(GRID, target, starts=3, pole_epsilon=EPSILON)
    assert list(without.parameters) == ["a", "b", "D", "r", "q", "kappa", "m"]
    assert list(fit.parameters) == [*without.parameters, "c"]
    assert fit.parameters["c"] >= 0
    assert (without.pole_epsilon, fit.pole_epsilon) == (None, EPSILON)
    for one in (without, fit):
        assert np.isfinite(one.curve(np.linspace(0, 1, 11))).all()
        assert (one.curve(np.linspace(0, 1, 11)) > 0).all()
    square = fit.curve(GRID) ** 2 - fit.parameters["c"] * pole(GRID)
    rest = replace(fit, parameters={**fit.parameters, "c": 0.0})
    np.testing.assert_allclose(rest.curve(GRID) ** 2, square)


def test_the_same_seed_gives_the_same_fit_and_more_starts_never_a_worse_one():
    target = 1 + np.exp(-8 * GRID) + GRID**6
    one, two = (fit_epr(GRID, target, starts=3, seed=5) for _ in range(2))
    assert one.parameters == two.parameters
    assert one.kl == two.kl
    assert one.kl <= fit_epr(GRID, target, starts=1, seed=5).kl


@pytest.mark.parametrize(
    ("t", "target", "reason"),
    [
        (GRID[:7], np.ones(7), "at least 8"),
        (GRID, np.ones(39), "one moment for each"),
        (GRID[::-1], np.ones(40), "increase"),
        (np.append(GRID[:-1], 1.01), np.ones(40), "inside"),
        (GRID, np.append(np.ones(39), 0.0), "positive"),
        (GRID, np.append(np.ones(39), np.nan), "finite"),
    ],
)
def test_a_probe_that_cannot_be_fitted_is_refused(t: np.ndarray, target: np.ndarray, reason: str):
    with pytest.raises(ValueError, match=reason):
        fit_epr(t, target)
