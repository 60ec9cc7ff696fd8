"""Rewards of texts: what a step's prediction would have been worth as the response.

Rewards have names. `correct` is the task's own score, `format` whether an answer can be found in
the form that the task asks for, `figure:NAME` a figure of the task that is a share of one item
(sudoku's `figure:blanks_right`). One of your own, in a module that is imported:

    from raymdm.policy.rewards import register_reward

    def brief(task, argument):  # of `brief:100`, argument is "100"
        return lambda text, reference: float(len(text) < int(argument))

    register_reward("brief", brief)

Rewards are computed in a process of their own with a time limit (`raymdm.tasks.timed`), whichever
process asks: a verifier that hangs or crashes costs that reward of that text, which counts 0.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raymdm.config.data import TaskSection
from raymdm.errors import ConfigurationError
from raymdm.tasks import TaskSpec, get_task
from raymdm.tasks.template import nearest
from raymdm.tasks.timed import CheckerProcess, Reply

Reward = Callable[[str, Mapping[str, Any]], float]
"""(text of a response, the item's reference) -> a finite number, mostly from 0 to 1."""
MakeReward = Callable[[TaskSpec, str], Reward]
"""(task, what follows the colon of the name) -> the reward."""


def _correct(task: TaskSpec, argument: str) -> Reward:
    return task.score


def _format(task: TaskSpec, argument: str) -> Reward:
    marks = [re.compile(pattern) for pattern in task.delimiters]

    def reward(text: str, reference: Mapping[str, Any]) -> float:
        return float(task.extract(text) is not None and all(mark.search(text) for mark in marks))

    return reward


def _figure(task: TaskSpec, argument: str) -> Reward:
    counts = task.counts
    if counts is None or argument not in task.figures:
        raise ConfigurationError(
            f"policy.rewards: task {task.name} has no figure {argument!r}"
            f"{nearest(argument, task.figures)}; it has: {', '.join(task.figures) or 'none'}"
        )
    above, below = task.figures[argument]

    def reward(text: str, reference: Mapping[str, Any]) -> float:
        found = counts(text, reference)
        return found[above] / found[below] if found[below] else 0.0

    return reward


_MAKERS: dict[str, MakeReward] = {"correct": _correct, "format": _format, "figure": _figure}


def register_reward(name: str, make: MakeReward) -> None:
    """Add a reward, or replace one of that name.

    Args:
        name: what `policy.rewards` says before a colon, if there is one.
        make: called with the task and what follows the colon.

    Raises:
        ConfigurationError: an empty name, or one with a colon.
    """
    if not name or ":" in name:
        raise ConfigurationError(f"reward name {name!r}: must not be empty nor contain ':'")
    _MAKERS[name] = make


def get_reward(name: str, task: TaskSpec) -> Reward:
    """The reward of that name for a task. Raises ConfigurationError for one that there is not."""
    family, _, argument = name.partition(":")
    make = _MAKERS.get(family)
    if make is None:
        raise ConfigurationError(
            f"policy.rewards: unknown reward {name!r}{nearest(family, _MAKERS)}; known: "
            f"{', '.join(sorted(_MAKERS))} (your own module is registered with --import)"
        )
    return make(task, argument)


@dataclass(frozen=True)
class Scores:
    """Of n texts.

    Attributes:
        values: [n], the weighted sums.
        parts: [n] of every reward by name, before its weight.
        checks: rewards that were computed: equal texts of equal items once.
        timed_out: how many of them took too long, and count 0.
        crashed: how many raised an exception, gave no finite number or ended their process.
    """

    values: list[float]
    parts: dict[str, list[float]]
    checks: int
    timed_out: int
    crashed: int


class Verifier:
    """Computes rewards of texts, in another process that starts at the first one.

    Args:
        task: of the items; its files by absolute paths.
        weights: of the rewards by name (`policy.rewards`).
        imports: the user's modules, which may register tasks and rewards; imported here already.
        seconds: for one reward of one text (`policy.reward_seconds`).

    Raises:
        ConfigurationError: an unknown task, reward or figure.
    """

    def __init__(
        self,
        task: TaskSection,
        weights: Mapping[str, float],
        imports: Sequence[str] = (),
        seconds: float = 10.0,
    ) -> None:
        self.weights = dict(weights)
        made = get_task(task)
        for name in self.weights:
            get_reward(name, made)
        asked = {
            "task": task.model_dump(mode="json"),
            "rewards": list(self.weights),
            "imports": list(imports),
            "folder": os.getcwd(),
        }
        command = (sys.executable, "-m", "raymdm.policy.reward_checker", json.dumps(asked))
        self._checker = CheckerProcess(command, seconds)

    def __call__(self, texts: Sequence[str], references: Sequence[Mapping[str, Any]]) -> Scores:
        """The rewards of texts, each with the reference of its item.

        Raises:
            RunError: the other process does not start at all, as where a module cannot be imported.
        """
        known: dict[tuple[str, str, str], Reply] = {}
        parts: dict[str, list[float]] = {name: [] for name in self.weights}
        for text, reference in zip(texts, references, strict=True):
            item = json.dumps(reference, sort_keys=True)
            for name, values in parts.items():
                key = (name, text, item)
                if key not in known:
                    known[key] = self._asked(name, text, reference)
                values.append(known[key].value if not known[key].failure else 0.0)
        failures = [reply.failure for reply in known.values()]
        return Scores(
            values=[
                sum(self.weights[name] * values[at] for name, values in parts.items())
                for at in range(len(texts))
            ],
            parts=parts,
            checks=len(known),
            timed_out=failures.count("timed_out"),
            crashed=failures.count("crashed"),
        )

    def close(self) -> None:
        """End the process; a later call starts another."""
        self._checker.close()

    def _asked(self, name: str, text: str, reference: Mapping[str, Any]) -> Reply:
        reply = self._checker.ask([name, text, reference])
        if reply.failure:
            return reply
        value, failure = reply.value
        return Reply(value, failure)
