"""Rewards: named, weighted, computed once, and never more than one lost to a bad verifier."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import own_rewards  # noqa: F401
import pytest

from raymdm.config.data import TaskSection
from raymdm.errors import ConfigurationError, RunError
from raymdm.policy.reward_checker import Rewards
from raymdm.policy.rewards import Verifier, get_reward, register_reward
from raymdm.tasks import get_task, math_answers
from raymdm.tasks.timed import Reply

YES = {"answer": "yes"}


@contextmanager
def verifier(task: str, weights: dict[str, float], **keys: Any) -> Iterator[Verifier]:
    section = TaskSection(name=task)
    made = Verifier(section, weights, imports=["own_rewards"], **keys)
    yield made
    made.close()


def test_rewards_are_weighted_and_added_up():
    with verifier("echo", {"correct": 1.0, "fragile": 0.2}) as rewards:
        found = rewards(["yes", "no"], [YES, YES])
    assert found.parts == {"correct": [1.0, 0.0], "fragile": [0.5, 0.5]}
    assert found.values == pytest.approx([1.1, 0.1])
    assert (found.checks, found.timed_out, found.crashed) == (4, 0, 0)


def test_equal_texts_of_equal_items_are_scored_once():
    with verifier("echo", {"counting:10": 1.0}) as rewards:
        found = rewards(["a", "b", "a", "a"], [YES, YES, YES, {"answer": "no"}])
        assert found.values == [11.0, 12.0, 11.0, 13.0]
        assert found.checks == 3
        assert rewards([], []).values == []


def test_a_verifier_that_hangs_or_crashes_costs_that_reward_only():
    texts = ["hang", "yes", "die", "yes", "raise", "nan", "no"]
    with verifier("echo", {"correct": 1.0, "fragile": 1.0}, seconds=1.5) as rewards:
        found = rewards(texts, [YES] * 7)
    assert found.parts["fragile"] == [0.0, 0.5, 0.0, 0.5, 0.0, 0.0, 0.5]
    assert found.parts["correct"] == [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    assert (found.timed_out, found.crashed) == (1, 3)
    assert found.checks == 12


def test_mathematical_answers_are_compared_by_what_they_mean():
    with verifier("math500", {"correct": 1.0, "format": 0.5}, seconds=30) as rewards:
        found = rewards(
            [r"\boxed{\frac{4}{2}}", r"\boxed{3}", "The answer is 2.", "two"],
            [{"answer": "2"}] * 4,
        )
    assert found.parts == {"correct": [1.0, 0.0, 1.0, 0.0], "format": [1.0, 1.0, 0.0, 0.0]}
    assert found.crashed == found.timed_out == 0


def test_a_failure_that_the_task_noticed_itself_is_handed_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(math_answers, "check", lambda *_: Reply(failure="timed_out"))
    rewards = Rewards(TaskSection(name="math500"), ["correct", "format"])
    assert rewards(["correct", r"\boxed{3}", {"answer": "2"}]) == (0.0, "timed_out")
    assert rewards(["format", r"\boxed{3}", {"answer": "2"}]) == (1.0, "")


def test_the_format_is_an_answer_in_the_tasks_delimiters():
    reward = get_reward("format", get_task("countdown"))
    assert reward("so <answer>1 + 2</answer>", {}) == 1.0
    assert reward("so 1 + 2", {}) == 0.0
    assert reward("so <answer></answer>", {}) == 0.0
    assert get_reward("format", get_task("gsm8k"))("it is 7", {}) == 0.0


def test_a_figure_of_the_task_is_a_share():
    task = get_task("sudoku")
    reference = {"puzzle": "0234341221434321", "solution": "1234341221434321"}
    grid = "<answer>{}</answer>"
    reward = get_reward("figure:blanks_right", task)
    assert reward(grid.format("1234341221434321"), reference) == 1.0
    assert reward(grid.format("2234341221434321"), reference) == 0.0
    with pytest.raises(ConfigurationError, match="no figure 'blanks_rigth'; did you mean"):
        get_reward("figure:blanks_rigth", task)
    with pytest.raises(ConfigurationError, match=r"no figure 'f1'.*none"):
        get_reward("figure:f1", get_task("gsm8k"))


def test_mistakes_are_told_before_anything_is_scored():
    with pytest.raises(
        ConfigurationError, match=r"unknown reward 'corect'.*did you mean 'correct'"
    ):
        Verifier(TaskSection(name="gsm8k"), {"corect": 1.0})
    with pytest.raises(ConfigurationError, match="must not be empty nor contain ':'"):
        register_reward("a:b", lambda task, argument: task.score)


def test_a_module_that_cannot_be_imported_there_is_an_error_of_the_run():
    rewards = Verifier(TaskSection(name="gsm8k"), {"correct": 1.0}, imports=["no_such_module"])
    with pytest.raises(RunError, match="reward_checker"):
        rewards(["1"], [{"answer": "1"}])
