"""Keys of `raymdm sweep`: arms × seeds × hyperparameter axes."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raymdm.config.section import Section
from raymdm.config.training import Stream

Multiple = Annotated[int, Field(ge=1)]


class ArmSection(Section):
    """One arm: an overlay on the sweep's configuration."""

    configs: list[str] = []
    """Configuration files merged over the base, e.g. `estimators/ppots`."""
    overlay: dict[str, Any] = {}
    """Keys merged after them, e.g. `{training: {batch_size: 64}}`."""
    times: dict[Literal["batch_size", "steps"], Multiple] = {}
    """`training.batch_size` or `training.steps` times a whole number, after all else, e.g.
    `{batch_size: 2}`: what an arm of two views is to be measured against."""


class AxisSection(Section):
    """One hyperparameter: exactly one of the three."""

    choice: list[Any] | None = None
    """One of these values."""
    uniform: list[float] | None = Field(default=None, min_length=2, max_length=2)
    """Uniform between two numbers."""
    loguniform: list[float] | None = Field(default=None, min_length=2, max_length=2)
    """Log-uniform between two positive numbers."""

    @model_validator(mode="after")
    def _one_law(self) -> "AxisSection":
        if sum(v is not None for v in (self.choice, self.uniform, self.loguniform)) != 1:
            raise ValueError("an axis has exactly one of choice, uniform, loguniform")
        for low, high in filter(None, (self.uniform, self.loguniform)):
            if low >= high or (self.loguniform and low <= 0):
                raise ValueError(
                    "an axis runs from a low to a higher number (positive for loguniform)"
                )
        if self.choice is not None and not self.choice:
            raise ValueError("choice needs at least one value")
        return self


class SweepSection(Section):
    """The design of a sweep: every arm with every seed, at every setting of the axes."""

    arms: dict[str, ArmSection] = {}
    """The arms by name."""
    baseline: str | None = None
    """The arm that the others are compared with; null means the first."""
    seeds: list[int] = []
    """Seeds of every arm; arms share order and time noise seed by seed."""
    vary: list[Stream] | None = Field(default=None, min_length=1)
    """What the seeds vary, e.g. `[mask]` or `[init, order]`; the other streams stay those of the
    first seed, in every run. null: all of them."""
    axes: dict[str, AxisSection] = {}
    """Hyperparameters by dotted key, e.g. `training.learning_rate: {loguniform: [1e-4, 1e-2]}`."""
    samples: int = Field(default=1, ge=1)
    """Settings drawn from the axes; each is run with every arm and seed."""
    equalise: Literal["steps", "forwards"] = "steps"
    """`steps`: every arm takes its own `training.steps`. `forwards`: as many as bring its forward
    passes, views and probe included, nearest to the first arm's."""
    path: Literal["auto", "process", "trainer"] = "auto"
    """`process` runs one-worker trials inside reused trial processes, `trainer` through Ray Train;
    `auto` takes the cheaper one that fits."""
    concurrency: int | None = Field(default=None, ge=1)
    """Trials at the same time; null means as many as the cluster holds."""
    cpus_per_trial: float = Field(default=1.0, gt=0)
    """Logical CPUs of a trial that runs in its own process."""
    retries: int = Field(default=2, ge=0)
    """Restarts of a trial lost to infrastructure, with the same seed. Divergence is not retried."""
    keep: Literal["metrics", "last", "best", "all"] = "metrics"
    """What each trial leaves on disk once it is evaluated."""

    @model_validator(mode="after")
    def _consistent(self) -> "SweepSection":
        if self.baseline is not None and self.baseline not in self.arms:
            raise ValueError(
                f"sweep.baseline {self.baseline!r} is not among the arms: {', '.join(self.arms)}"
            )
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("sweep.seeds holds the same seed twice")
        return self
