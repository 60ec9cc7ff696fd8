"""The process in which rewards are computed.

    python -m raymdm.policy.reward_checker '{"task": …, "rewards": …, "imports": …, "folder": …}'

Started by `raymdm.policy.rewards`. A request is `[reward, text, reference]`; the reply its value
and a failure that the reward itself has noticed: tasks with mathematical answers compare them in
yet another process, with a limit of its own.
"""

import importlib
import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from raymdm.config.data import TaskSection
from raymdm.policy.rewards import get_reward
from raymdm.tasks import get_task, math_answers
from raymdm.tasks.timed import serve


class Rewards:
    """The rewards of a task by name, as functions of a request."""

    def __init__(self, task: TaskSection, names: list[str]) -> None:
        self.task = get_task(task)
        self.rewards = {name: get_reward(name, self.task) for name in names}
        self.compares = "checks_timed_out" in self.task.figures
        if self.compares:
            # The first start of the other process takes seconds: not within an answer's limit.
            math_answers.verify("1", "2")

    def __call__(self, request: list[Any]) -> tuple[float, str]:
        """Value and failure. Raises whatever a reward raises, ValueError for no finite number."""
        name, text, reference = request
        value = float(self.rewards[name](text, reference))
        if not math.isfinite(value):
            raise ValueError(f"reward {name} is {value}")
        return value, self._failure(text, reference) if name == "correct" else ""

    def _failure(self, text: str, reference: Mapping[str, Any]) -> str:
        if not self.compares or self.task.counts is None:
            return ""
        counts = self.task.counts(text, reference)  # remembers the check
        failures = [name for name in ("timed_out", "crashed") if counts.get(f"checks_{name}")]
        return failures[0] if failures else ""


def main(asked: Mapping[str, Any]) -> None:
    """Answer requests until there are no more."""
    sys.path.append(asked["folder"])
    for name in asked["imports"]:
        importlib.import_module(name)
    section = TaskSection.model_validate_json(json.dumps(asked["task"]))
    serve(Rewards(section, asked["rewards"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
