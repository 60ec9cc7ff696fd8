"""Candidates of a sweep's search, as `search.json` has them, and which of them is chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import inf, isfinite
from typing import Any, Literal

State = Literal["running", "complete", "stopped", "diverged", "failed"]
ENDED = ("complete", "stopped", "diverged")
"""States after which a candidate is not tried again."""


@dataclass
class Candidate:
    """Settings of one arm, trained with every seed of the search.

    Attributes:
        arm: whose.
        number: from 0, within the arm.
        settings: hyperparameters by dotted key.
        state: `complete` (trained to the end), `stopped` (behind at a rung), `diverged` (with at
            least one seed), `failed` (lost to infrastructure or a mistake), `running`.
        steps: optimiser steps after which the scores were measured.
        scores: held-out NELBO in nats per token, in the order of the search's seeds; infinity where
            the run diverged.
        message: why it failed.
    """

    arm: str
    number: int
    settings: dict[str, Any]
    state: State = "running"
    steps: int = 0
    scores: list[float] = field(default_factory=list)
    message: str | None = None

    @property
    def name(self) -> str:
        """Unique in the sweep."""
        return f"{self.arm}-candidate{self.number}"

    @property
    def score(self) -> float:
        """Mean over the seeds; infinity where one diverged or none is there."""
        return sum(self.scores) / len(self.scores) if self.scores else inf

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity: a diverged score is None."""
        return {**asdict(self), "scores": [s if isfinite(s) else None for s in self.scores]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Candidate":
        """The inverse of `to_dict`. Raises KeyError or TypeError for other content."""
        scores = [inf if score is None else score for score in content["scores"]]
        return cls(**{**content, "scores": scores})


def best(candidates: Sequence[Candidate]) -> Candidate | None:
    """The one of the lowest score among those trained to the end, if there is any."""
    complete = [each for each in candidates if each.state == "complete"]
    return min(complete, key=lambda each: each.score, default=None)
