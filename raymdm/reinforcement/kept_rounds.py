"""Rollouts of rounds that no checkpoint covers yet, on disk: `run_dir/rollouts/STEP/slot-N`.

A run that goes on from a checkpoint trains on what was rolled out after it, instead of doing that
again; so whatever is lost costs at most the round that it was lost in.
"""

import shutil
from pathlib import Path

from raymdm.errors import CheckpointError
from raymdm.policy.compact import read_traces, write_traces
from raymdm.reinforcement.rounds import Group, Place
from raymdm.training.run_directory import RunDirectory

FOLDER = "rollouts"


class KeptRounds:
    """Files of groups, each by its round and slot: whoever has the slot next reads it.

    Args:
        run: whose they are.
        start: fingerprint of the weights that it starts from.
    """

    def __init__(self, run: RunDirectory, start: str | None) -> None:
        self.path, self.start = run.path / FOLDER, start

    def read(self, step: int, place: Place) -> Group | None:
        """The group that was rolled out for a place of a round; None where there is none whole."""
        file = self._file(step, place)
        if not file.exists():
            return None
        try:
            found = read_traces(file)
        except CheckpointError:
            return None
        if found.metadata.get("who") != self._who(place):
            return None  # of another list of prompts, or another start
        return Group(
            place,
            int(found.metadata["version"]),
            found.traces,
            found.arrays["rewards"],
            found.arrays["correct"],
        )

    def write(self, step: int, group: Group) -> None:
        """Keep a group."""
        file = self._file(step, group.place)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_traces(
            file,
            group.traces,
            {"rewards": group.rewards, "correct": group.correct},
            {"who": self._who(group.place), "version": str(group.version)},
        )

    def drop(self, before: int) -> None:
        """Remove the rounds before this one: a checkpoint covers them. One rank calls it."""
        for folder in self.path.glob("*"):
            if folder.name.isdigit() and int(folder.name) < before:
                shutil.rmtree(folder, ignore_errors=True)

    def clear(self) -> None:
        """Remove everything: the run has ended."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _file(self, step: int, place: Place) -> Path:
        return self.path / f"{step:08d}" / f"slot-{place.slot:05d}.safetensors"

    def _who(self, place: Place) -> str:
        """What the rollouts of a place depend on, beside the weights of the moment."""
        return (
            f"start {self.start} prompt {place.item.number} epoch {place.epoch} "
            f"block {place.block_length}"
        )
