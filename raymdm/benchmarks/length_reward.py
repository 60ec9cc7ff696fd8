"""A reward on which random responses differ, so that there is something to learn from.

`raymdm bench rl` has the processes that compute rewards import it.
"""

from collections.abc import Mapping
from typing import Any

from raymdm.policy.rewards import Reward, register_reward
from raymdm.tasks import TaskSpec


def _length(task: TaskSpec, argument: str) -> Reward:
    def reward(text: str, reference: Mapping[str, Any]) -> float:
        return 1 / (1 + len(text))

    return reward


register_reward("length", _length)
