"""Keys of `raymdm sweep`: arms × seeds × hyperparameter axes."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from raymdm.config.section import Section
from raymdm.config.training import Seed, Stream

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


class HalvingSection(Section):
    """ASHA: a candidate that is behind at a rung, on the mean over its seeds, is not trained on."""

    rungs: int = Field(default=3, ge=2, le=8)
    """Looks at a candidate, the last one at its full steps."""
    factor: int = Field(default=3, ge=2, le=10)
    """Only the best 1/factor go on from a rung, to factor times its steps."""


class SearchSection(Section):
    """Hyperparameters chosen for every arm by itself, each from the same candidates or as many, on
    the held-out NELBO of training, before the seeds of the verdict are run.
    """

    axes: dict[str, AxisSection] = Field(min_length=1)
    """Hyperparameters by dotted key, e.g. `training.learning_rate: {choice: [1e-3, 3e-3]}`."""
    method: Literal["grid", "random", "optuna"] = "grid"
    """`grid`: every combination of the axes' choices. `random`: draws, the same for every arm.
    `optuna`: its TPE sampler, one study for each arm, told the mean over the seeds."""
    samples: int = Field(default=8, ge=1)
    """Candidates of every arm (`random`, `optuna`)."""
    seeds: list[Seed] = Field(min_length=1)
    """Seeds of every candidate; its score is the mean over them. None of the verdict's."""
    halving: HalvingSection | None = None
    """ASHA among the candidates of an arm; null trains all of them to the end."""

    @model_validator(mode="after")
    def _consistent(self) -> "SearchSection":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("sweep.search.seeds holds the same seed twice")
        drawn = [key for key, axis in self.axes.items() if axis.choice is None]
        if self.method == "grid" and drawn:
            raise ValueError(
                f"sweep.search.method grid needs a choice for every axis, {drawn[0]} has none; "
                "list its values, or take random or optuna"
            )
        return self


class LooksSection(Section):
    """How seeds are added under `sweep.until: decided`, fixed before the first run."""

    every: int = Field(default=4, ge=1)
    """Seeds that every arm gets before the next look."""
    spending: Literal["obrien_fleming", "pocock"] = "obrien_fleming"
    """How the error is spent over the looks: late, or early by those who hope to stop early."""
    futility: float = Field(default=0.1, ge=0.0, lt=1.0)
    """An arm is given up where its best chance of being decided with all seeds is below this."""


class SweepSection(Section):
    """The design of a sweep: every arm with every seed, at every setting of the axes."""

    arms: dict[str, ArmSection] = {}
    """The arms by name."""
    baseline: str | None = None
    """The arm that the others are compared with; null means the first."""
    seeds: list[int] = []
    """Seeds of every arm; arms share order and time noise seed by seed."""
    until: Literal["all", "decided"] = "all"
    """`all`: every arm with every seed. `decided`: seeds are added to all arms alike until every
    arm is better, worse, equivalent or futile, at most all (needs compare.margin)."""
    looks: LooksSection = LooksSection()
    vary: list[Stream] | None = Field(default=None, min_length=1)
    """What the seeds vary, e.g. `[mask]` or `[init, order]`; the other streams stay those of the
    first seed, in every run. null: all of them."""
    axes: dict[str, AxisSection] = {}
    """Hyperparameters by dotted key, e.g. `training.learning_rate: {loguniform: [1e-4, 1e-2]}`."""
    samples: int = Field(default=1, ge=1)
    """Settings drawn from the axes; each is run with every arm and seed."""
    search: SearchSection | None = None
    """Hyperparameters to choose for every arm before its runs with `seeds`; null takes the arms as
    they are. (`axes` instead runs and judges every setting.)"""
    equalise: Literal["steps", "forwards", "seconds"] = "steps"
    """`steps`: every arm takes its own `training.steps`. `forwards`: as many as bring its forward
    passes, views and probe included, nearest to the first arm's. `seconds`: as many as take as long
    as the first arm, by steps measured once before the first run and kept in calibration.json."""
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
        if self.search is not None:
            self._fresh_seeds(self.search)
        if self.axes and self.until == "decided":
            raise ValueError(
                "sweep.until decided asks one question, sweep.axes one for each setting; choose "
                "the setting first, with sweep.search"
            )
        return self

    def _fresh_seeds(self, search: SearchSection) -> None:
        if self.axes:
            raise ValueError("give sweep.axes (judge every setting) or sweep.search (choose one)")
        seen = sorted(set(self.seeds) & set(search.seeds))
        if seen:
            raise ValueError(
                f"sweep.search.seeds and sweep.seeds share {', '.join(map(str, seen))}: settings "
                "chosen on a seed look better on it; take fresh ones for the verdict"
            )
