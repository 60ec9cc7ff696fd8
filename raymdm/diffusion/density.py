"""Densities of the mask rate on [0,1], and their fit to a probe curve (P-POTS).

Importance sampling of t is optimal for independent rows when f(t) ∝ sqrt(E[l²|t]) (paper,
section 4.1; the design note "estimators", section 3). A density here is piecewise constant on a
dense grid, so that its inverse CDF is exact and E[1/f] = 1 to rounding, whatever curve it came
from.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from raymdm.diffusion.epr import EPRFit, fit_epr

CELLS = 1000


@dataclass(frozen=True)
class TimeDensity:
    """A piecewise constant density on [0,1].

    Attributes:
        cells: float64[K], the density in K equal cells; mean 1, all positive.
        origin: where it came from (fit parameters, probe curve), kept in `density.json`.
    """

    cells: np.ndarray
    origin: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cells = np.asarray(self.cells, dtype=np.float64)
        if cells.ndim != 1 or not np.isfinite(cells).all() or (cells <= 0).any():
            raise ValueError("a density needs positive, finite cells")
        # Cells that are normalised already stay bit for bit: a density read back is the one saved.
        mean = cells.mean()
        object.__setattr__(self, "cells", cells if abs(mean - 1) < 1e-12 else cells / mean)

    def pdf(self, t: np.ndarray) -> np.ndarray:
        """f(t), float64, same shape as t in [0,1]."""
        index = np.minimum((np.asarray(t) * len(self.cells)).astype(np.int64), len(self.cells) - 1)
        return self.cells[index]

    def weight(self, t: np.ndarray) -> np.ndarray:
        """The importance weight 1/f(t)."""
        return 1.0 / self.pdf(t)

    def cdf(self, t: np.ndarray) -> np.ndarray:
        """F(t) in [0,1]."""
        edges = np.linspace(0.0, 1.0, len(self.cells) + 1)
        return np.interp(t, edges, self._cumulative())

    def icdf(self, u: np.ndarray) -> np.ndarray:
        """T with F(t) = u, exact for the piecewise constant density; u in [0,1]."""
        edges = np.linspace(0.0, 1.0, len(self.cells) + 1)
        return np.interp(u, self._cumulative(), edges)

    def _cumulative(self) -> np.ndarray:
        cumulative = np.concatenate([[0.0], np.cumsum(self.cells)])
        return cumulative / cumulative[-1]

    def mixed(self, share: float) -> "TimeDensity":
        """(1 - share) f + share: bounds every weight by 1/share and stays unbiased."""
        return TimeDensity(
            (1.0 - share) * self.cells + share, {**self.origin, "mixed_with_uniform": share}
        )

    def save(self, path: Path) -> None:
        """Write `density.json`: the cells that are sampled from, and their origin."""
        content = {"cells": self.cells.tolist(), **self.origin}
        temporary = path.with_name(f".{path.name}")
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> "TimeDensity":
        """Read `density.json`. Raises ValueError for a file that holds no density."""
        try:
            content = json.loads(path.read_text())
            return cls(np.array(content.pop("cells"), dtype=np.float64), content)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} holds no density: {error}") from error


def fit_density(
    t: np.ndarray,
    root_second_moment: np.ndarray,
    *,
    kind: str = "epr",
    starts: int = 20,
    mixing: float = 0.05,
    seed: int = 0,
    epsilon: float = 1e-3,
) -> TimeDensity:
    """The density of a kind that is nearest to a probe curve, mixed with uniform.

    Args:
        t: float64[T], increasing rates in (0,1).
        root_second_moment: float64[T], as from `density_curve`, not normalised.
        kind: `epr`, `epr_pole` or `tabulated`.
        starts: seeded starting points of the fit.
        mixing: share of the uniform density.
        seed: of the starting points.
        epsilon: of alpha(t), for the pole.

    Raises:
        ValueError: an unknown kind, rates that do not increase, or moments that are not positive
            and finite.
    """
    if kind == "tabulated":
        density = tabulated_density(t, root_second_moment)
    elif kind in ("epr", "epr_pole"):
        pole = epsilon if kind == "epr_pole" else None
        density = epr_density(
            fit_epr(t, root_second_moment, starts=starts, seed=seed, pole_epsilon=pole)
        )
    else:
        raise ValueError(f"density kind {kind} is not fitted: epr, epr_pole and tabulated are")
    return density.mixed(mixing)


def density_curve(
    second: np.ndarray, mean_square: np.ndarray, target: Literal["iid", "stratified"]
) -> np.ndarray:
    """What the density should follow: sqrt(g² + v) for independent rates, sqrt(v) for stratified.

    Args:
        second: float64[T], E|y|² at the rates of a probe, y the loss or its gradient.
        mean_square: float64[T], an estimate of |E y|², so that v is the difference. Where noise
            leaves less than 1% of the second moment, v is taken to be that.
        target: which limit the density minimises.

    Returns:
        float64[T], positive.
    """
    square = second if target == "iid" else np.maximum(second - mean_square, 0.01 * second)
    return np.sqrt(positive(square))


def positive(moments: np.ndarray) -> np.ndarray:
    """The curve with zeros (rates at which no mask hit any token) at its least positive value."""
    return np.maximum(moments, moments[moments > 0].min(initial=np.inf))


def epr_density(fit: EPRFit) -> TimeDensity:
    """The fitted curve on the whole of [0,1].

    The paper's curve is taken at the midpoints of the cells. The pole changes by half within the
    first of them, where alpha goes from epsilon to about twice that, so its curve is averaged over
    each cell. Both stay constant beyond the last rate of the probe, where nothing holds the growth
    of t^r and exp(2 kappa t^m) back: a noisy probe can be fitted by a spike there.
    """
    pole = fit.pole_epsilon is not None
    nodes, weights = np.polynomial.legendre.leggauss(8 if pole else 1)
    t = np.minimum((np.arange(CELLS)[:, None] + (nodes + 1) / 2) / CELLS, fit.t[-1])
    origin = {
        "kind": "epr_pole" if pole else "epr",
        "parameters": fit.parameters,
        "kl": fit.kl,
        **({"epsilon": fit.pole_epsilon} if pole else {}),
        **_probe(fit.t, fit.target),
    }
    return TimeDensity(fit.curve(t) @ weights / 2, origin)


def tabulated_density(t: np.ndarray, root_second_moment: np.ndarray) -> TimeDensity:
    """The probe itself: linear between its rates, constant beyond them, zeros raised.

    Args:
        t: float64[T], increasing rates in (0,1).
        root_second_moment: float64[T], not normalised.

    Raises:
        ValueError: rates that do not increase, or moments that are negative or not finite.
    """
    if t.ndim != 1 or t.shape != root_second_moment.shape or (np.diff(t) <= 0).any():
        raise ValueError("a tabulated density needs increasing rates and one moment for each")
    if not np.isfinite(root_second_moment).all() or (root_second_moment < 0).any():
        raise ValueError("probe moments must be finite, and none negative")
    middle = (np.arange(CELLS) + 0.5) / CELLS
    cells = np.interp(middle, t, positive(root_second_moment))
    return TimeDensity(cells, {"kind": "tabulated", **_probe(t, root_second_moment)})


def power_density(epsilon: float) -> TimeDensity:
    """The density f ∝ alpha(t)^-1/2, exact in every cell: no probe (ours).

    Its weights 2 sqrt(alpha) / (1 + sqrt(epsilon)) stay below 2 / (1 + sqrt(epsilon)).
    """
    edges = np.linspace(0.0, 1.0, CELLS + 1)
    root = np.sqrt((1.0 - epsilon) * edges + epsilon)
    return TimeDensity(np.diff(root), {"kind": "power", "epsilon": epsilon})


def _probe(t: np.ndarray, root_second_moment: np.ndarray) -> dict[str, Any]:
    return {"probe_t": t.tolist(), "probe_root_second_moment": root_second_moment.tolist()}
