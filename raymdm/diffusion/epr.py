"""The EPR curve of P-POTS: seven parameters fitted to the root second moment of the loss.

    f(t) ∝ sqrt( a t^r + b (1-t)^q + D² exp(2 kappa t^m) ),   a, b, D, kappa >= 0,  r, q, m >= 1

fitted by minimising KL(w / ∫w || f) over the probe's grid, integrals by the trapezoid rule, with
L-BFGS-B from several seeded starts (arXiv 2511.18159, section 4.1 and appendix). Scaling a, b by c²
and D by c changes nothing: compare densities, never parameters.

The noise of the number of masked tokens gives E[l²|t] a pole of 1/alpha(t) at low rates, which
these terms cannot follow. The variant with a pole (ours) adds c/alpha(t) under the root, c >= 0 and
alpha(t) = (1 - epsilon) t + epsilon.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

NAMES = ("a", "b", "D", "r", "q", "kappa", "m", "c")
_START = np.array([-0.3, 0.4, -1.0, 0.3, 0.2, -0.2, 0.2, -1.0])
_LEAST = np.array([0.0, 0, 0, 1, 1, 0, 1, 0])
_SPREAD = 0.6


@dataclass(frozen=True)
class EPRFit:
    """A fitted curve, the KL it reached (nats), its probe, and the epsilon of its pole."""

    parameters: dict[str, float]
    kl: float
    t: np.ndarray
    target: np.ndarray
    pole_epsilon: float | None = None

    def curve(self, t: np.ndarray) -> np.ndarray:
        """The curve at t in [0,1], not normalised; float64, same shape."""
        t = np.asarray(t, dtype=np.float64)
        values = [self.parameters[name] for name in NAMES if name in self.parameters]
        return np.sqrt(_square(t, _pole(t, self.pole_epsilon), *values))


def fit_epr(
    t: np.ndarray,
    target: np.ndarray,
    *,
    starts: int = 20,
    seed: int = 0,
    pole_epsilon: float | None = None,
) -> EPRFit:
    """Fit the curve to `target[T]` (not normalised) on the rates `t[T]`.

    Args:
        t: float64[T], T >= 8.
        target: float64[T], a root second moment.
        starts: starting points, the first of them fixed.
        seed: of the others.
        pole_epsilon: epsilon of alpha(t) for the variant with a pole; None for the paper's curve.

    Raises:
        ValueError: rates that do not increase inside [0,1], or a target that is not positive.
    """
    t = np.asarray(t, dtype=np.float64)
    target = np.asarray(target, dtype=np.float64)
    if t.ndim != 1 or t.shape != target.shape or len(t) < 8:
        raise ValueError("the probe needs at least 8 rates and one moment for each")
    if (np.diff(t) <= 0).any() or t[0] < 0 or t[-1] > 1:
        raise ValueError("probe rates must increase inside [0,1]")
    if not np.isfinite(target).all() or (target <= 0).any():
        raise ValueError("probe moments must be positive and finite")
    density = target / np.trapezoid(target, t)
    entropy = np.trapezoid(density * np.log(density), t)
    weights = _trapezoid_weights(t)
    pole = _pole(t, pole_epsilon)
    size = len(NAMES) - (pole is None)

    random = np.random.default_rng(seed)
    results = [
        minimize(
            _cross_entropy,
            _START[:size] + (_SPREAD * random.standard_normal(size) if start else 0.0),
            args=(t, density * weights, weights, pole),
            jac=True,
            method="L-BFGS-B",
            bounds=[(-30.0, 30.0)] * size,
            options={"maxiter": 2000, "maxfun": 4000, "ftol": 1e-13, "gtol": 1e-9},
        )
        for start in range(starts)
    ]
    best = min(results, key=lambda result: result.fun)
    parameters = dict(zip(NAMES, _constrained(best.x).tolist(), strict=False))
    return EPRFit(parameters, float(best.fun + entropy), t, target, pole_epsilon)


def _pole(t: np.ndarray, epsilon: float | None) -> np.ndarray | None:
    """1/alpha(t), or None for the curve without it."""
    return None if epsilon is None else 1.0 / ((1.0 - epsilon) * t + epsilon)


def _trapezoid_weights(t: np.ndarray) -> np.ndarray:
    gaps = np.diff(t)
    return np.concatenate([[gaps[0]], gaps[:-1] + gaps[1:], [gaps[-1]]]) / 2


def _constrained(raw: np.ndarray) -> np.ndarray:
    """Softplus of every raw parameter; the three exponents start at 1."""
    return np.logaddexp(0.0, raw) + _LEAST[: len(raw)]


def _square(
    t: np.ndarray,
    pole: np.ndarray | None,
    a: float,
    b: float,
    scale: float,
    r: float,
    q: float,
    kappa: float,
    m: float,
    c: float = 0.0,
) -> np.ndarray:
    square = a * t**r + b * (1 - t) ** q + scale**2 * np.exp(2 * kappa * t**m)
    return square if pole is None else square + c * pole


def _cross_entropy(
    raw: np.ndarray,
    t: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray,
    pole: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
    """-∫ target log f and its gradient in the raw parameters; `target` carries the quadrature."""
    parameters = _constrained(raw)
    a, b, scale, r, q, kappa, m = parameters[:7]
    log_t = np.log(np.maximum(t, 1e-300))
    log_s = np.log(np.maximum(1 - t, 1e-300))
    rise, fall, power = t**r, (1 - t) ** q, t**m
    bump = scale**2 * np.exp(2 * kappa * power)
    square = _square(t, pole, *parameters)
    root = np.sqrt(square)
    total = float(np.sum(weights * root))
    value = -np.sum(target * 0.5 * np.log(square)) + np.log(total)
    slopes = [
        rise,
        fall,
        2 * bump / scale,
        a * rise * log_t,
        b * fall * log_s,
        2 * bump * power,
        2 * bump * kappa * power * log_t,
    ]
    if pole is not None:
        slopes.append(pole)
    gradient = np.stack(slopes) @ (0.5 * (weights / (root * total) - target / square))
    return float(value), gradient * expit(raw)
