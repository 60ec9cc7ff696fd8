"""`search.json`: every candidate of a sweep's search, what it came to, and what was chosen."""

from pathlib import Path
from typing import Any

from raymdm.config import Config
from raymdm.errors import CheckpointError, RunError
from raymdm.training.run_directory import read_json, write_json
from raymdm.verdict.candidates import Candidate, best
from raymdm.verdict.search import NAME


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
        self.candidates = [Candidate.from_dict(each) for each in found.get("candidates", [])]

    def of(self, arm: str) -> list[Candidate]:
        """The candidates of an arm."""
        return [each for each in self.candidates if each.arm == arm]

    def save(self) -> None:
        """Write the file."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        rows = [each.to_dict() for each in self.candidates]
        write_json(self.file, {"question": self.question, "candidates": rows})

    def best(self) -> dict[str, Candidate]:
        """By arm, the candidate of the lowest mean among those trained to the end.

        Raises:
            RunError: an arm has none.
        """
        chosen = {}
        for arm in self.question["arms"]:
            found = best(self.of(arm))
            if found is None:
                states = ", ".join(f"{c.settings} {c.state}" for c in self.of(arm)) or "none ended"
                raise RunError(
                    f"{self.file}: no candidate of arm {arm!r} was trained to its end ({states}); "
                    "search other values (sweep.search.axes) in another run_dir"
                )
            chosen[arm] = found
        return chosen
