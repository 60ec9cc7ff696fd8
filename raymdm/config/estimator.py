"""Keys of the loss estimator: independent choices whose product holds the paper's methods."""

from typing import Literal

from pydantic import Field, model_validator

from raymdm.config.section import Section


class TimeSection(Section):
    """How the mask rate t of each row is drawn (the TimeSampler), over the global batch."""

    sampler: Literal["uniform", "importance", "clipped"] = "uniform"
    """`uniform` on [0,1); `importance` from the density, weighted by 1/density (P-POTS); `clipped`
    uniform between the bounds, without a weight: another objective (BD3-LM)."""
    bounds: list[float] = Field(default=[0.3, 0.8], min_length=2, max_length=2)
    """Least and greatest t of `clipped`."""
    stratify: Literal["none", "strata", "lattice", "antithetic"] = "none"
    """How the uniforms of a global step are spread before they become rates: `strata` equal ones
    (StraTS), `lattice` as many strata as rows, `antithetic` pairs u and 1 - u."""
    strata: int | None = Field(default=None, ge=2)
    """Number of `strata`; null takes the square root of the global batch, rounded down."""

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> "TimeSection":
        low, high = self.bounds
        if not 0 <= low < high <= 1:
            raise ValueError(f"time.bounds must be 0 <= low < high <= 1, got {low} and {high}")
        if self.strata is not None and self.stratify != "strata":
            raise ValueError("time.strata is read under time.stratify strata only")
        return self


class ProbeSection(Section):
    """Forwards of the starting model that measure the moments the density is fitted to."""

    kind: Literal["grid", "count"] = "grid"
    """`grid`: rows × rates × masks with the run's own masker (the paper's). `count`: random numbers
    of masked tokens, from which every rate follows by the binomial law; far cheaper, one view."""
    rates: int = Field(default=32, ge=8)
    """Rates of the fitted curve; under `grid` one drawn in each of this many strata of (0,1)."""
    rows: int = Field(default=32, ge=2)
    """Training rows probed."""
    masks: int = Field(default=2, ge=1)
    """Masks for every row and rate (`grid`)."""
    draws: int = Field(default=256, ge=16)
    """Forwards over all rows (`count`)."""
    batch_size: int = Field(default=64, ge=1)
    """Rows of one probe forward; fixed, so that the result does not depend on the cluster."""
    parameters: str = "all"
    """Whose gradient, under density.moment gradient: `all`, `last_block` (and the final norm), or a
    regular expression searched in the names, for models whose whole gradient is too much."""


class AdaptiveSection(Section):
    """The density `ap`: piecewise constant, refitted from the losses of the training stream."""

    bins: int = Field(default=24, ge=2, le=200)
    """Cells of the density, finer towards t = 0; of the logged decomposition of every run too."""
    refit_every: int = Field(default=50, ge=1)
    """Optimiser steps between refits."""


class DensitySection(Section):
    """The density of t under importance sampling (the TimeDensity)."""

    kind: Literal["epr", "epr_pole", "power", "tabulated", "ap"] = "epr"
    """`epr`: the paper's 7-parameter curve; `epr_pole`: with a term c/alpha(t) under its root;
    `power`: alpha(t)^-1/2, without any probe; `tabulated`: the probe itself, interpolated;
    `ap`: adaptive, from the training stream."""
    moment: Literal["loss", "gradient"] = "loss"
    """Whose second moment is fitted: of a row's loss (the paper), or of its gradient's norm."""
    target: Literal["iid", "stratified"] = "iid"
    """Which limit it minimises: sqrt(g² + v) for independent rates, sqrt(v) for stratified."""
    file: str | None = None
    """A `density.json` of an earlier run to use instead of probing."""
    mixing: float = Field(default=0.05, ge=0.0, le=1.0)
    """Share of the uniform density mixed in: bounds every weight by its inverse."""
    fit_starts: int = Field(default=20, ge=1)
    """Seeded starting points of the fit."""
    probe: ProbeSection = ProbeSection()
    adaptive: AdaptiveSection = AdaptiveSection()

    @model_validator(mode="after")
    def _the_stream_has_losses_only(self) -> "DensitySection":
        if self.kind == "ap" and self.moment == "gradient":
            raise ValueError(
                "density.kind ap reads the losses of the training stream, which holds no gradient "
                "of single rows: set density.moment to loss, or choose a probed kind"
            )
        if self.kind in ("power", "ap") and self.file is not None:
            raise ValueError(f"density.kind {self.kind} is not read from a file")
        return self


class MaskerSection(Section):
    """How tokens are masked given t (the Masker)."""

    kind: Literal["independent", "mirror", "rotation", "complement", "count"] = "independent"
    """`independent`: every token with probability alpha(t). `mirror`: two views of one noise, the
    second with the noise reflected (MIRROR). `rotation`: K views, the noise shifted by 1/K.
    `complement`: two views at t and 1 - t with complementary masks. `count`: exactly
    k = 1 + floor(n t) tokens, mean cross-entropy over them."""
    views: int = Field(default=1, ge=1)
    """Masks, and forwards, of each row at the same t (independent, K > 1: MultiSample-K)."""

    @model_validator(mode="after")
    def _views_fit(self) -> "MaskerSection":
        if self.kind in ("mirror", "complement") and self.views != 2:
            raise ValueError(
                f"masker.kind {self.kind} has exactly two views: set masker.views to 2"
            )
        if self.kind == "rotation" and self.views < 2:
            raise ValueError("masker.kind rotation needs masker.views of 2 or more")
        return self


class DelimiterSection(Section):
    """Mask rates of the answer delimiters (ISAD); the task says which tokens those are."""

    rates: Literal["same", "raised", "exact"] = "same"
    """`same` as all tokens; `raised` to min(alpha + delta, 1), each cross-entropy divided by its
    own (the paper's, biased by 1-2%); `exact`: alpha + delta (1 - alpha), weighted by the
    likelihood ratio of the whole mask, unbiased."""
    delta: float = Field(default=0.2, gt=0.0, lt=1.0)
    """How far the delimiters' rate is raised."""


class ControlSection(Section):
    """A control variate: steadies the reported loss and leaves the gradient as it is."""

    kind: Literal["none", "ema"] = "none"
    """`ema`: per bin of t, a moving average of the loss from before the step."""
    bins: int = Field(default=20, ge=1)
    """Equal bins of t."""
    decay: float = Field(default=0.99, ge=0.0, lt=1.0)
    """Weight of the past in the moving average."""
    coefficient: float = Field(default=1.0, gt=0.0)
    """Share of the moving average that is subtracted."""


class EstimatorSection(Section):
    """The composition: objective, time sampler, density, masker, delimiters, control variate."""

    objective: Literal["masked", "autoregressive"] = "masked"
    """`masked`: the diffusion loss. `autoregressive`: next-token loss of a causal model (ARM)."""
    epsilon: float = Field(default=1e-3, ge=0.0, lt=1.0)
    """Floor of the mask probability alpha(t) = (1 - epsilon) t + epsilon."""
    normalize: Literal["sample", "token"] = "sample"
    """`sample`: 1/n per row, mean over rows. `token`: one sum over the batch's response tokens."""
    eligible: Literal["response", "response_and_syntax"] = "response"
    """Positions that may be masked: the response, or also the prompt's syntax tokens, which the
    task names (SyRM); n counts them."""
    forgetting: float = Field(default=0.99, ge=0.0, lt=1.0)
    """Weight of the past, per step, in the statistics of the stream (decomposition, density ap)."""
    time: TimeSection = TimeSection()
    density: DensitySection = DensitySection()
    masker: MaskerSection = MaskerSection()
    delimiters: DelimiterSection = DelimiterSection()
    control: ControlSection = ControlSection()

    @model_validator(mode="after")
    def _parts_fit(self) -> "EstimatorSection":
        count = self.masker.kind == "count"
        if self.objective == "autoregressive":
            chosen = {
                "time": (self.time.sampler, self.time.stratify) != ("uniform", "none"),
                "masker": (self.masker.kind, self.masker.views) != ("independent", 1),
                "delimiters": self.delimiters.rates != "same",
                "control": self.control.kind != "none",
            }
            for part in (name for name, differs in chosen.items() if differs):
                raise ValueError(
                    f"estimator.objective autoregressive masks nothing, so estimator.{part} "
                    "must stay at its defaults"
                )
            if self.eligible != "response":
                raise ValueError("estimator.objective autoregressive predicts the response only")
        if count and self.delimiters.rates != "same":
            raise ValueError(
                "masker.kind count masks all tokens alike: estimator.delimiters.rates must be same"
            )
        probes = self.time.sampler == "importance" and self.density.probe.kind == "count"
        if probes and (self.delimiters.rates != "same" or self.masker.kind == "complement"):
            raise ValueError(
                "density.probe.kind count measures masks of equal rates: use grid with raised "
                "delimiter rates or masker.kind complement"
            )
        if count and self.time.sampler == "clipped":
            raise ValueError("masker.kind count needs time.sampler uniform or importance")
        if self.control.kind == "ema" and (count or self.time.sampler == "clipped"):
            raise ValueError(
                "control.kind ema needs a mask rate on all of [0,1]: time.sampler uniform or "
                "importance, and a masker other than count"
            )
        return self
