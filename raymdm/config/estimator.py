"""Keys of the loss estimator: independent choices whose product holds the paper's methods."""

from typing import Literal

from pydantic import Field, model_validator

from raymdm.config.section import Section


class TimeSection(Section):
    """How the mask rate t of each row is drawn (the TimeSampler)."""

    sampler: Literal["uniform", "importance"] = "uniform"
    """`uniform` on [0,1), or `importance` from the density, weighted by 1/density (P-POTS)."""


class ProbeSection(Section):
    """Forwards of the starting model that measure sqrt(E[l²|t]) for the density."""

    rates: int = Field(default=32, ge=8)
    """Mask rates, one in each of this many equal strata of (0,1)."""
    rows: int = Field(default=32, ge=1)
    """Training rows probed at every rate."""
    masks: int = Field(default=2, ge=1)
    """Masks drawn for every row and rate."""
    batch_size: int = Field(default=64, ge=1)
    """Rows of one probe forward; fixed, so that the result does not depend on the cluster."""


class DensitySection(Section):
    """The density of t under importance sampling (the TimeDensity)."""

    kind: Literal["epr"] = "epr"
    """`epr`: the paper's 7-parameter curve, fitted to the probe."""
    file: str | None = None
    """A `density.json` of an earlier run to use instead of probing."""
    mixing: float = Field(default=0.05, ge=0.0, le=1.0)
    """Share of the uniform density mixed in: bounds every weight by its inverse."""
    fit_starts: int = Field(default=20, ge=1)
    """Seeded starting points of the fit."""
    probe: ProbeSection = ProbeSection()


class MaskerSection(Section):
    """How tokens are masked given t (the Masker)."""

    kind: Literal["independent", "mirror"] = "independent"
    """`independent`: each view has its own noise. `mirror`: two views of one noise, the second
    with the noise reflected (MIRROR)."""
    views: int = Field(default=1, ge=1)
    """Independent views of each row (K > 1: MultiSample-K). MIRROR always has two."""

    @model_validator(mode="after")
    def _mirror_has_two_views(self) -> "MaskerSection":
        if self.kind == "mirror" and self.views != 2:
            raise ValueError("masker.kind mirror has exactly two views: set masker.views to 2")
        return self


class EstimatorSection(Section):
    """The composition: objective, time sampler, density, masker."""

    epsilon: float = Field(default=1e-3, ge=0.0, lt=1.0)
    """Floor of the mask probability alpha(t) = (1 - epsilon) t + epsilon."""
    normalize: Literal["sample", "token"] = "sample"
    """`sample`: 1/n per row, mean over rows. `token`: one sum over the batch's response tokens."""
    time: TimeSection = TimeSection()
    density: DensitySection = DensitySection()
    masker: MaskerSection = MaskerSection()
