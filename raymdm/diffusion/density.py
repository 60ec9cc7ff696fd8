"""Densities of the mask rate on [0,1], and their fit to a probe curve (P-POTS).

Importance sampling of t is optimal for independent rows when f(t) ∝ sqrt(E[l²|t]) (paper,
section 4.1; the design note "estimators", section 3). A density here is piecewise constant on a
dense grid, so that its inverse CDF is exact and E[1/f] = 1 to rounding, whatever curve it came
from.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    starts: int = 20,
    mixing: float = 0.05,
    seed: int = 0,
) -> TimeDensity:
    """The EPR density nearest to a probe curve, mixed with uniform.

    Args:
        t: float64[T], increasing rates in (0,1).
        root_second_moment: float64[T], sqrt(E[l²|t]) at those rates, not normalised.
        starts: seeded starting points of the fit.
        mixing: share of the uniform density.
        seed: of the starting points.

    Raises:
        ValueError: rates that do not increase, or moments that are not positive and finite.
    """
    fit = fit_epr(t, root_second_moment, starts=starts, seed=seed)
    return epr_density(fit).mixed(mixing)


def epr_density(fit: EPRFit) -> TimeDensity:
    """The fitted curve on the whole of [0,1], at the midpoints of the cells."""
    middle = (np.arange(CELLS) + 0.5) / CELLS
    origin = {
        "kind": "epr",
        "parameters": fit.parameters,
        "kl": fit.kl,
        "probe_t": fit.t.tolist(),
        "probe_root_second_moment": fit.target.tolist(),
    }
    return TimeDensity(fit.curve(middle), origin)


def power_density(epsilon: float) -> TimeDensity:
    """f ∝ alpha(t)^-1/2, exact in every cell: no probe, weights below 2 (ours)."""
    edges = np.linspace(0.0, 1.0, CELLS + 1)
    root = np.sqrt((1.0 - epsilon) * edges + epsilon)
    return TimeDensity(np.diff(root), {"kind": "power", "epsilon": epsilon})
