"""What `raymdm variance` found, as plain data: the content of `variance.json`."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Figure(BaseModel):
    """A number and its 95% interval."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float
    high: float


class Parts(BaseModel):
    """Variance components of one quantity (of a row's loss, or of its gradient).

    A: mask pattern; B: mask rate; C: rows; total = A + B + C, from rates drawn anew for every row.
    B1 (main effect of t, what stratifying removes) and B2 (interaction of row and t) come from
    rates shared by all rows. `direct` is the plain variance of independent draws.
    """

    A: Figure
    B: Figure
    C: Figure
    total: Figure
    B1: Figure
    B2: Figure
    direct: Figure


class Curves(BaseModel):
    """g(t) and v(t) of one quantity at some rates: v the whole conditional variance given t.

    For the gradient, g is the norm of the mean gradient. rho is the correlation of MIRROR's two
    views given row and rate.
    """

    t: list[float]
    g: list[Figure]
    v: list[Figure]
    rho: list[Figure]
    pooled_rho: Figure


class Fit(BaseModel):
    """A density and the probe it was fitted to."""

    kind: str
    coordinate: str
    """`rate` t, or `share` k/n for exact counts."""
    pdf_t: list[float]
    pdf: list[float]
    probe_t: list[float]
    probe_root: list[float]
    """What was fitted, the root of the moment of its target, not normalised; empty if nothing."""
    kl: float | None


class Gain(BaseModel):
    """N times the variance of a global batch's mean, of one quantity under one estimator.

    `fixed`, `step` and `forward` are ratios to what was measured of Standard with the same N,
    `predicted` and `optimum` to what is predicted of Standard.
    """

    variance: float
    """Measured, rows redrawn: A + B + C."""
    fixed: Figure
    """Measured, rows held fixed, relative to Standard with rows held fixed: A + B."""
    step: Figure
    """Measured, rows redrawn."""
    forward: Figure
    """`step` times the forwards of a row: at equal forwards, against a larger batch of Standard."""
    expected: float | None
    """`variance` as the count probe predicts it, without running the estimator; None where there is
    no formula. Rates near 0, too rare for the batches, are in it."""
    predicted: float | None
    """`expected` over Standard's."""
    optimum: float | None
    """The least that any density reaches with this law and these views."""
    of_optimum: Figure | None
    """`variance` over that optimum."""


class Measured(BaseModel):
    """One estimator."""

    name: str
    forwards: int
    """Views of a row, each a forward."""
    same_objective: bool
    """Whether its expectation is Standard's (up to epsilon); else variances are not comparable."""
    limit: str
    """Which optimum it is held to: `iid` or `stratified` rates."""
    loss: Gain
    gradient: Gain
    over_best: Figure | None = None
    """Its gradient variance per forward over that of the affordable estimator with the least, the
    two resampled together: Standard's own noise is not in it."""


class SketchFigures(BaseModel):
    """How gradients were reduced."""

    parameters: str
    coordinates: int
    dimension: int
    stated_error: float
    """Relative standard error of one squared norm, by theory."""
    measured_error: float
    """Root mean square of the relative error over the draws, against exact norms."""


class Figures(BaseModel):
    """The whole of `variance.json`."""

    model: str
    model_parameters: int
    data: str
    rows: int
    response_tokens: float
    """Mean n of the measured rows."""
    seed: int
    batch_size: int
    epsilon: float
    normalize: str
    settings: dict[str, Any]
    sketch: SketchFigures
    loss: Parts
    gradient: Parts
    loss_curves: Curves
    gradient_curves: Curves
    densities: dict[str, Fit]
    estimators: list[Measured]
    left_out: dict[str, str]
    """Estimators that could not be measured, and why."""
    forwards: int
    """The user's budget of forwards a step."""
    recommended: str = ""
    sentences: list[str] = []
    """The recommendation in plain words."""
    seconds: float
