"""A user's module: a task and rewards that misbehave on certain texts."""

import os
import signal
import time
from pathlib import Path

from raymdm.policy.rewards import register_reward
from raymdm.tasks import Example, TaskSpec, register_task

calls = 0


def echo(section):
    def extract(text):
        return text.strip() or None

    def score(text, reference):
        return float(text == reference["answer"])

    return TaskSpec(section.name, lambda row: Example("", "x"), extract, score)


def fragile(task, argument):
    def reward(text, reference):
        if text == "hang":
            time.sleep(60)
        if text == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if text == "raise":
            raise KeyError(text)
        return float("nan") if text == "nan" else 0.5

    return reward


def host_dies_once(task, argument):
    """Kills the process that asks for it, unless the file that the argument names is there."""
    mark = Path(argument)

    def reward(text, reference):
        if not mark.exists():
            mark.touch()
            os.kill(os.getppid(), signal.SIGKILL)
        return float(len(text))

    return reward


def counting(task, argument):
    def reward(text, reference):
        global calls
        calls += 1
        return calls + float(argument or 0)

    return reward


register_task("echo", echo)
register_reward("fragile", fragile)
register_reward("counting", counting)
register_reward("host_dies_once", host_dies_once)
