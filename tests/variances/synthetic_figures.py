"""Figures as `raymdm variance` finds them, with made-up numbers of realistic sizes."""

from typing import Any

import numpy as np

from raymdm.config.variance import VarianceSection
from raymdm.variances.figures import (
    Curves,
    Figure,
    Figures,
    Fit,
    Gain,
    Measured,
    Parts,
    SketchFigures,
)

PER_STEP = {
    "standard": 1.0,
    "multisample2": 0.72,
    "mirror": 0.58,
    "rotation4": 0.41,
    "complement": 0.56,
    "antithetic": 0.93,
    "strats": 0.90,
    "lattice": 0.88,
    "power": 0.71,
    "adaptive": 0.74,
    "ppots": 0.73,
    "ppots_pole": 0.69,
    "ppots_lattice": 0.64,
    "ppots_mirror": 0.45,
    "ppots_mirror_strats": 0.43,
    "count": 0.52,
    "recommended": 0.44,
    "isad": 1.06,
    "isad_exact": 1.21,
    "ema": 1.0,
    "clipped": 0.38,
}
"""Gradient variance per step over Standard's."""
VIEWS = {
    "multisample2": 2,
    "mirror": 2,
    "rotation4": 4,
    "complement": 2,
    "ppots_mirror": 2,
    "ppots_mirror_strats": 2,
}
OTHER_OBJECTIVE = ("isad", "clipped")
STRATIFIED = ("antithetic", "strats", "lattice", "ppots_lattice", "count", "recommended")
DENSITIES = (
    "power",
    "adaptive",
    "ppots",
    "ppots_pole",
    "ppots_lattice",
    "ppots_mirror",
    "ppots_mirror_strats",
    "recommended",
)
MASKS_LEAD = {"A": 0.74, "B": 0.14, "C": 0.12, "B1": 0.09, "B2": 0.05}
ROWS_LEAD = {"A": 0.29, "B": 0.13, "C": 0.58, "B1": 0.03, "B2": 0.10}


def around(value: float, width: float = 0.08) -> Figure:
    """A number with an interval of ± that share of it."""
    half = abs(value) * width
    return Figure(value=value, low=value - half, high=value + half)


def parts(
    shares: dict[str, float], total: float, width: float = 0.08, direct: float = 1.03
) -> Parts:
    """Components of a total; `direct` over the total is the plain variance."""
    found = {name: around(share * total, width) for name, share in shares.items()}
    return Parts(**found, total=around(total, width), direct=around(direct * total, width))


def gain(step: float, views: int, variance: float, width: float, comparable: bool = True) -> Gain:
    """A gain whose measured numbers agree with the predicted ones."""
    exact = step == 1.0 and views == 1
    measured = around(step, 0.0 if exact else width)
    return Gain(
        variance=variance * step,
        fixed=around(step * 0.98, 0.0 if exact else width),
        step=measured,
        forward=Figure(value=views * step, low=views * measured.low, high=views * measured.high),
        expected=variance * step * 1.01 if comparable else None,
        predicted=step * 1.01 if comparable else None,
        optimum=step * 0.96 if comparable else None,
        of_optimum=around(1 / 0.96, width) if comparable else None,
    )


def estimator(name: str, step: float, width: float = 0.07, **changes: Any) -> Measured:
    """One estimator, a preset's name or any other."""
    views = changes.pop("forwards", VIEWS.get(name, 1))
    comparable = name not in OTHER_OBJECTIVE
    described: dict[str, Any] = {
        "name": name,
        "forwards": views,
        "same_objective": comparable,
        "limit": "stratified" if name in STRATIFIED else "iid",
        "loss": gain(0.6 if name == "ema" else step**0.8, views, 0.052, width, comparable),
        "gradient": gain(step, views, 3.4e-6, width, comparable),
    }
    return Measured(**described | changes)


def curves(level: float, slope: float, pooled: Figure) -> Curves:
    """A mean that bends, a variance with a pole at 0, a correlation that falls."""
    t = np.linspace(0.02, 0.98, 16)
    alpha = 0.999 * t + 0.001
    odds = np.minimum(alpha, 1 - alpha) / np.maximum(alpha, 1 - alpha)
    return Curves(
        t=t.tolist(),
        g=[around(level * (0.3 + slope * rate**2)) for rate in t],
        v=[around(0.1 * level**2 * (1 / rate - 0.6), 0.25) for rate in alpha],
        rho=[
            Figure(value=value, low=max(-1, value - 0.15), high=value + 0.15)
            for value in -0.6 * odds + 0.1 * t
        ],
        pooled_rho=pooled,
    )


def fit(name: str) -> Fit:
    """A density near its probe; without a probe for those that need none."""
    t = (np.arange(500) + 0.5) / 500
    # The densities are mixed with the uniform one.
    curve = 0.95 * (0.5 / np.sqrt(t + 0.01)) / 0.905 + 0.05
    probed = name not in ("power", "adaptive")
    at = np.linspace(0.015, 0.985, 32)
    noise = np.random.default_rng(len(name)).normal(0, 0.06, 32)
    root = 3.2e-3 * np.interp(at, t, curve) * np.exp(noise)
    kinds = {"power": "power", "adaptive": "ap", "ppots": "epr"}
    return Fit(
        kind=kinds.get(name, "epr_pole"),
        coordinate="share" if name == "recommended" else "rate",
        pdf_t=t.tolist(),
        pdf=curve.tolist(),
        probe_t=at.tolist() if probed else [],
        probe_root=root.tolist() if probed else [],
        kl=0.0023 if probed else None,
    )


def synthetic(
    steps: dict[str, float] | None = None, width: float = 0.07, **changes: Any
) -> Figures:
    """Figures of all presets, or of `steps`: gradient variance per step of each estimator."""
    steps = PER_STEP if steps is None else steps
    rho = Figure(value=-0.09, low=-0.12, high=-0.06)
    content: dict[str, Any] = {
        "model": "runs/tiny/model",
        "model_parameters": 1_238_016,
        "data": "data/gsm8k",
        "rows": 7473,
        "response_tokens": 96.4,
        "seed": 0,
        "batch_size": 64,
        "epsilon": 1e-3,
        "normalize": "sample",
        "settings": VarianceSection().model_dump(),
        "sketch": SketchFigures(
            parameters="all",
            coordinates=1_238_016,
            dimension=1024,
            stated_error=0.044,
            measured_error=0.041,
        ),
        "loss": parts(ROWS_LEAD, 0.052),
        "gradient": parts(MASKS_LEAD, 3.4e-6),
        "loss_curves": curves(0.9, 2.0, rho),
        "gradient_curves": curves(8e-4, 1.2, rho),
        "densities": {name: fit(name) for name in DENSITIES if name in steps},
        "estimators": [estimator(name, step, width) for name, step in steps.items()],
        "left_out": {"syrm": "no row of the data has marked syntax: set task.syntax and prepare"},
        "forwards": 64,
        "seconds": 311.0,
    }
    return Figures(**content | changes)
