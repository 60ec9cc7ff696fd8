"""`search.json`: every candidate of a sweep's search, what it came to, and what was chosen."""

from dataclasses import asdict, dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Any, Literal

from raymdm.config import Config
from raymdm.errors import CheckpointError, RunError
from raymdm.sweeps.design import Settings
from raymdm.training.run_directory import read_json, write_json
from raymdm.verdict.search import NAME

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
    settings: Settings
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


class SearchRecord:
    """The file, kept whole after every change, so that the same command goes on from it."""

    def __init__(self, config: Config, sweep_dir: Path) -> None:
        """Read what an earlier call left.

        Raises:
            CheckpointError: it searched something else.
        """
        search = config.sweep.search
        assert search is not None
        self.file = sweep_dir / NAME
        self.question: dict[str, Any] = {
            **search.model_dump(mode="json"),
            "arms": list(config.sweep.arms),
            "equalise": config.sweep.equalise,
        }
        found = read_json(self.file)
        for key, value in self.question.items():
            if found and found["question"].get(key) != value:
                was = found["question"].get(key)
                raise CheckpointError(
                    f"{self.file}: the search began with {key} {was!r}, here it is {value!r}; "
                    "choose another run_dir"
                )
        self.candidates = [
            Candidate(**{**each, "scores": [inf if s is None else s for s in each["scores"]]})
            for each in found.get("candidates", [])
        ]

    def of(self, arm: str) -> list[Candidate]:
        """The candidates of an arm."""
        return [each for each in self.candidates if each.arm == arm]

    def save(self) -> None:
        """Write the file. JSON has no infinity: a diverged score is null."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {**asdict(each), "scores": [s if isfinite(s) else None for s in each.scores]}
            for each in self.candidates
        ]
        write_json(self.file, {"question": self.question, "candidates": rows})

    def best(self) -> dict[str, Candidate]:
        """By arm, the candidate of the lowest mean among those trained to the end.

        Raises:
            RunError: an arm has none.
        """
        chosen = {}
        for arm in self.question["arms"]:
            complete = [each for each in self.of(arm) if each.state == "complete"]
            if not complete:
                states = ", ".join(f"{c.settings} {c.state}" for c in self.of(arm)) or "none ended"
                raise RunError(
                    f"{self.file}: no candidate of arm {arm!r} was trained to its end ({states}); "
                    "search other values (sweep.search.axes) in another run_dir"
                )
            chosen[arm] = min(complete, key=lambda each: each.score)
        return chosen
