"""Rewards in Ray: what the plain verifier gives, and no more lost than what is broken."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raymdm.config.data import TaskSection
from raymdm.errors import ConfigurationError, RunError
from raymdm.policy.rewards import Scores
from raymdm.reinforcement.reward_tasks import RewardTasks

YES, NO = {"answer": "yes"}, {"answer": "no"}
GSM8K = TaskSection(name="gsm8k")
FOLDERS = [str(Path(__file__).parents[1] / "policy"), str(Path(__file__).parents[2])]


@pytest.fixture(scope="module")
def worker(ray_cluster: None) -> Iterator[Any]:
    """A worker as Ray Train has them: in a placement group that its tasks would fall into. The
    user's module is on its path, and so on that of its tasks.
    """

    class Worker:
        made: RewardTasks

        def make(self, weights: dict[str, float], **keys: Any) -> None:
            import own_rewards  # noqa: F401

            self.made = RewardTasks(TaskSection(name="echo"), weights, ["own_rewards"], **keys)

        def scores(self, texts: list[str], references: list[Any]) -> Scores:
            return self.made(texts, references)

        def groups(self) -> list[Any]:
            of_actors = [
                actor.__ray_call__.remote(lambda _: current_group()) for actor in self.made._actors
            ]
            return [current_group(), *ray.get(of_actors)]

    def current_group() -> str | None:
        found = ray.util.get_current_placement_group()
        return found and found.id.hex()

    group = placement_group([{"CPU": 1}])
    ray.get(group.ready())
    inside = PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=True)
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(FOLDERS)}}
    yield (
        ray.remote(num_cpus=1, scheduling_strategy=inside, runtime_env=environment)(Worker).remote()
    )
    remove_placement_group(group)


def asked(worker: Any, texts: list[str], references: list[Any]) -> Scores:
    return ray.get(worker.scores.remote(texts, references))


@pytest.fixture(scope="module")
def two(worker: Any) -> Any:
    """The worker with two tasks for two rewards."""
    ray.get(worker.make.remote({"correct": 1.0, "fragile": 0.2}, seconds=1.5))
    return worker


@pytest.mark.ray
def test_each_text_gets_its_own_reward_and_equal_ones_are_sent_once(two: Any):
    texts = ["yes", "a", "no", "yes", "yes", "b"]
    found = asked(two, texts, [YES, YES, NO, NO, YES, NO])
    assert found.parts == {"correct": [1.0, 0.0, 1.0, 0.0, 1.0, 0.0], "fragile": [0.5] * 6}
    assert found.values == pytest.approx([1.1, 0.1, 1.1, 0.1, 1.1, 0.1])
    assert (found.checks, found.timed_out, found.crashed) == (10, 0, 0)


@pytest.mark.ray
def test_a_reward_that_hangs_or_crashes_costs_that_reward_only(two: Any):
    found = asked(two, ["hang", "yes", "die", "yes", "raise", "nan", "no"], [YES] * 7)
    assert found.parts["fragile"] == [0.0, 0.5, 0.0, 0.5, 0.0, 0.0, 0.5]
    assert found.parts["correct"] == [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    assert (found.timed_out, found.crashed) == (1, 3)


@pytest.mark.ray
def test_they_stay_out_of_the_placement_group_of_who_asks(two: Any):
    mine, *theirs = ray.get(two.groups.remote())
    assert mine is not None
    assert theirs == [None, None]


@pytest.mark.ray
def test_a_process_that_is_killed_costs_nothing(worker: Any, tmp_path: Path):
    mark = tmp_path / "killed"
    ray.get(worker.make.remote({f"host_dies_once:{mark}": 1.0}, tasks=1))
    found = asked(worker, ["a", "bb", "ccc"], [YES] * 3)
    assert found.values == [1.0, 2.0, 3.0]
    assert (found.timed_out, found.crashed) == (0, 0)
    assert mark.exists()


@pytest.mark.ray
def test_our_own_exceptions_come_out_as_they_are(ray_cluster: None):
    with pytest.raises(ConfigurationError, match="unknown reward 'corect'"):
        RewardTasks(GSM8K, {"corect": 1.0})
    rewards = RewardTasks(GSM8K, {"correct": 1.0}, ["no_such_module"])
    with pytest.raises(ConfigurationError, match=r"^--import no_such_module: .*PYTHONPATH\?$"):
        rewards(["1"], [{"answer": "1"}])
    rewards.close()


@pytest.mark.ray
def test_processes_that_do_not_come_back_are_an_error_of_the_run(ray_cluster: None):
    rewards = RewardTasks(GSM8K, {"correct": 1.0})
    share = rewards.ask(["1"], [{"answer": "1"}])
    rewards.close()
    with pytest.raises(RunError, match=r"^a process that computes rewards was lost .*memory"):
        rewards.collect(share)


def test_without_ray_they_are_computed_from_here(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    rewards = RewardTasks(GSM8K, {"correct": 1.0, "format": 0.5})
    texts = ["#### 7", "#### 8", "#### 7"]
    found = rewards(texts, [{"answer": "7"}] * 3)
    rewards.close()
    assert found.parts["correct"] == [1.0, 0.0, 1.0]
    assert found.checks == 4
    assert rewards([], []) == Scores([], {"correct": [], "format": []}, 0, 0, 0)
