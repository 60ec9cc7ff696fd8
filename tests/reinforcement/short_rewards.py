"""A reward of one's own: how short a response is."""

from collections.abc import Mapping
from typing import Any

from raymdm.policy.rewards import register_reward


def short(task: Any, argument: str) -> Any:
    def reward(text: str, reference: Mapping[str, Any]) -> float:
        return 1 / (1 + len(text))

    return reward


register_reward("short", short)
