"""Where the trials of a sweep stand, by their run directories, and how long the rest takes."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from raymdm.sweeps.design import Trial
from raymdm.sweeps.trial import ENDS, trial_state
from raymdm.training import RunDirectory
from raymdm.training.run_directory import read_json

State = Literal["waiting", "running", "scoring", "finished", "diverged", "failed"]
STATES: tuple[State, ...] = ("finished", "running", "scoring", "waiting", "diverged", "failed")
AT_WORK = ("running", "scoring")


@dataclass(frozen=True)
class Standing:
    """One trial at one moment; None where nothing is known yet."""

    state: State = "waiting"
    step: int = 0
    steps: int | None = None
    loss: float | None = None
    """Of the last step, while it runs."""
    accuracy: float | None = None
    """Of the test items, once it is scored; likewise the NELBO."""
    nelbo: float | None = None
    """In nats per token."""
    seconds_left: float | None = None
    """Of its training."""
    message: str | None = None


class Board:
    """The trials of a sweep as they were last seen.

    What an earlier call left `running`, `failed` or interrupted waits, until its directory changes:
    nobody works on it yet. A trial that ended is not read again.

    Args:
        clock: seconds, for the durations of trials.
    """

    def __init__(
        self, trials: Iterable[Trial], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.trials: list[Trial] = []
        self.clock = clock
        self._seen: dict[str, Standing] = {}
        self._before: dict[str, dict[str, Any]] = {}
        self._told: set[str] = set()
        self._began: dict[str, float] = {}
        self._took: list[float] = []
        self._at_once = 1
        # The screen is drawn by a thread of its own.
        self._lock = threading.RLock()
        self.add(trials)

    def add(self, trials: Iterable[Trial]) -> None:
        """Trials that join; one that is known already is the same one."""
        with self._lock:
            for trial in trials:
                if trial.name not in self._seen:
                    run = RunDirectory(trial.config.run_dir)
                    self.trials.append(trial)
                    self._before[trial.name] = run.status()
                    self._seen[trial.name] = _read(run, self._before[trial.name])

    def look(self) -> None:
        """Read again what has not ended."""
        with self._lock:
            for trial in self.trials:
                if self._seen[trial.name].state not in ENDS:
                    self._note(trial)
            at_work = sum(each.state in AT_WORK for each in self._seen.values())
            self._at_once = max(self._at_once, at_work)

    def end(self, trial: Trial) -> Standing:
        """A trial ended, says the driver; how it ended."""
        with self._lock:
            self.add([trial])
            self._before[trial.name] = {}
            self._told.add(trial.name)
            if self._seen[trial.name].state not in ENDS:
                self._note(trial)
            return self._seen[trial.name]

    def standing(self, trial: Trial) -> Standing:
        """Where a trial stood at the last look."""
        return self._seen[trial.name]

    def ended(self) -> int:
        """Trials that will not go on: finished, diverged, or given up by the driver."""
        with self._lock:
            return sum(
                each.state in ENDS or name in self._told for name, each in self._seen.items()
            )

    def count(self, *states: str) -> int:
        """Trials in these states."""
        with self._lock:
            return sum(each.state in states for each in self._seen.values())

    def seconds_left(self) -> float | None:
        """Of the whole sweep: what the trials that wait and run still take, shared by as many as
        were seen running together. None as long as no duration is known.

        A trial takes as long as those that finished since this board was made; before the first
        one did, as those that run say of themselves.
        """
        with self._lock:
            running, took = {}, list(self._took)
            for name, each in self._seen.items():
                if each.state in AT_WORK:
                    age = self.clock() - self._began[name]
                    running[name] = age
                    if not self._took and each.seconds_left is not None:
                        took.append(age + each.seconds_left)
            if not took:
                return None
            mean, waiting = fmean(took), self.count("waiting")
            rests = [max(mean - age, 0.0) for age in running.values()]
            left = (waiting * mean + sum(rests)) / self._at_once
            return max([left, *rests, mean if waiting else 0.0])

    def _note(self, trial: Trial) -> None:
        """Take in what a trial's directory says now."""
        run = RunDirectory(trial.config.run_dir)
        try:
            standing = _read(run, self._before[trial.name])
        except (OSError, ValueError):
            return  # a file system that hesitates is asked again at the next look
        was, self._seen[trial.name] = self._seen[trial.name].state, standing
        now = self.clock()
        if standing.state in AT_WORK and was not in AT_WORK:
            self._began[trial.name] = now
        if standing.state == "finished" and trial.name in self._began:
            self._took.append(now - self._began[trial.name])


def _read(run: RunDirectory, before: dict[str, Any]) -> Standing:
    status = run.status()
    state = trial_state(run)
    if state not in ENDS and (state in ("missing", "stopped") or status == before):
        return Standing()
    final = read_json(run.scores).get("final") or {} if state == "finished" else {}
    known: dict[str, State] = {
        "finished": "finished",
        "diverged": "diverged",
        "failed": "failed",
        "running": "running",
    }
    # Trained and not yet scored, or stopped on the way and about to go on.
    between: State = "scoring" if status.get("state") == "finished" else "waiting"
    return Standing(
        state=known.get(state, between),
        step=status.get("step") or 0,
        steps=status.get("steps"),
        loss=status.get("loss"),
        accuracy=final.get("accuracy"),
        nelbo=final.get("nelbo_per_token"),
        seconds_left=status.get("seconds_left") if state == "running" else None,
        message=status.get("message"),
    )
