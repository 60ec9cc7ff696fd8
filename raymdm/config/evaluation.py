"""Keys of `raymdm evaluate` and `raymdm compare`."""

from typing import Literal

from pydantic import Field

from raymdm.config.decoding import DecodingSection
from raymdm.config.section import Section


class NelboSection(Section):
    """How the NELBO of the evaluated rows is computed."""

    exact_up_to: int = Field(default=4, ge=0, le=12)
    """Responses of at most this many tokens: the exact sum over all 2^n masks."""
    draws: int = Field(default=8, ge=1)
    """Longer ones: this many frozen masks, with the number masked stratified over 1..n."""


class EvaluationSection(Section):
    """What is evaluated, and how."""

    split: Literal["test", "validation", "train"] = "test"
    """Rows that are scored; validation is for choosing, test for the one final reading."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many rows of the split."""
    batch_size: int = Field(default=64, ge=1)
    """Rows decoded together; it does not change the result."""
    actors: int | None = Field(default=None, ge=1)
    """Ray actors that share the rows, each with a model of its own and of a worker's size
    (cluster.cpus_per_worker, gpus_per_worker); it does not change the result. null: this process
    does it all, without Ray."""
    traces: int = Field(default=0, ge=0)
    """A page for each of the first so many items that shows its denoising step by step; also counts
    how many were right at some step and wrong at the end (over-denoising)."""
    step0: bool = True
    """Score the starting weights too, under the same settings."""
    decoding: DecodingSection = DecodingSection()
    nelbo: NelboSection = NelboSection()


class CompareSection(Section):
    """The question that a sweep answers."""

    metric: Literal["accuracy", "nelbo"] = "accuracy"
    """The primary metric, declared before the runs; the other is shown beside it."""
    question: Literal["means", "spread"] = "means"
    """What the runs are made to compare: means, or how much the seeds spread. For `spread` nothing
    may stop runs early (sweep.search.halving, sweep.until): that would censor them."""
    margin: float | None = Field(default=None, gt=0)
    """Differences below this do not matter: allows the verdict `equivalent`."""
