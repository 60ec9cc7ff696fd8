"""Rewards as tasks of Ray actors: shared out over the cluster, retried where a process is lost.

Actors, because what a checker has imported takes seconds to start, and Ray ends the processes of
plain tasks after a second without work wherever there are more of them than CPUs, so that on a
laptop every round would start them anew. They wait for their checkers
(`raymdm.policy.rewards`) most of the time and ask for no CPU of their own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from raymdm.command import add_module_paths, import_modules, module_paths
from raymdm.config.data import TaskSection
from raymdm.errors import RaymdmError, RunError
from raymdm.policy.rewards import Scores, Verifier

RETRIES = 3
"""How many times the rewards are computed again whose process was lost."""


@dataclass(frozen=True)
class Asked:
    """Rewards that were asked for.

    Attributes:
        places: of every text, which of the distinct ones it is.
        shares: of every task, its result or where that will be; the distinct ones were dealt out
            one by one.
    """

    places: list[int]
    shares: list[Any]


class RewardTasks:
    """Computes rewards of texts in Ray; where Ray does not run, in a checker of this process.

    Args:
        task: of the items; its files by absolute paths.
        weights: of the rewards by name (`policy.rewards`).
        imports: the user's modules, which may register tasks and rewards; imported here already.
        seconds: for one reward of one text (`policy.reward_seconds`).
        tasks: that run at a time.

    Raises:
        ConfigurationError: an unknown task, reward or figure.
    """

    def __init__(
        self,
        task: TaskSection,
        weights: Mapping[str, float],
        imports: Sequence[str] = (),
        seconds: float = 10.0,
        tasks: int = 2,
    ) -> None:
        self.names, self.tasks = list(weights), tasks
        self._settings = (task, dict(weights), list(imports), seconds)
        self._here = Verifier(*self._settings)
        self._actors: list[Any] = []

    def __call__(self, texts: Sequence[str], references: Sequence[Mapping[str, Any]]) -> Scores:
        """The rewards of texts, as `Verifier` gives them."""
        return self.collect(self.ask(texts, references))

    def ask(self, texts: Sequence[str], references: Sequence[Mapping[str, Any]]) -> Asked:
        """Start on the rewards of texts, each with the reference of its item; equal ones once."""
        known: dict[tuple[str, str], int] = {}
        places: list[int] = []
        distinct: list[tuple[str, Mapping[str, Any]]] = []
        for text, reference in zip(texts, references, strict=True):
            place = known.setdefault((text, json.dumps(reference, sort_keys=True)), len(known))
            places.append(place)
            if place == len(distinct):
                distinct.append((text, reference))
        count = min(self.tasks if ray.is_initialized() else 1, len(distinct))
        shares = [zip(*distinct[share::count], strict=True) for share in range(count)]
        if not ray.is_initialized():
            return Asked(places, [self._here(*share) for share in shares])
        while len(self._actors) < count:
            self._actors.append(_remote().remote(module_paths(), *self._settings))
        actors = self._actors[:count]
        return Asked(
            places,
            [actor.scores.remote(*share) for actor, share in zip(actors, shares, strict=True)],
        )

    def collect(self, asked: Asked) -> Scores:
        """Wait for what was asked for.

        Raises:
            ConfigurationError: a module cannot be imported where the task runs.
            RunError: a checker does not start at all, or a process is lost again and again.
        """
        shares = [share if isinstance(share, Scores) else _result(share) for share in asked.shares]

        def gathered(dealt: Sequence[list[float]]) -> list[float]:
            return [dealt[at % len(dealt)][at // len(dealt)] for at in asked.places]

        return Scores(
            values=gathered([share.values for share in shares]),
            parts={name: gathered([share.parts[name] for share in shares]) for name in self.names},
            checks=sum(share.checks for share in shares),
            timed_out=sum(share.timed_out for share in shares),
            crashed=sum(share.crashed for share in shares),
        )

    def close(self) -> None:
        """End all processes; a later call starts others. They end with this one too."""
        self._here.close()
        while self._actors:
            ray.kill(self._actors.pop())


class RewardProcess:
    """A process of rewards.

    Args:
        paths: where the one that asks imports modules from.
        settings: arguments of `Verifier`.
    """

    def __init__(self, paths: Sequence[str], *settings: Any) -> None:
        self._paths, self._settings = paths, settings
        self._verifier: Verifier | None = None

    def scores(self, texts: Sequence[str], references: Sequence[Mapping[str, Any]]) -> Scores:
        """The rewards of texts."""
        # Not at the start: what it raises would be an actor that died.
        if self._verifier is None:
            add_module_paths(self._paths)
            import_modules(self._settings[2])
            self._verifier = Verifier(*self._settings)
        return self._verifier(texts, references)


def _remote() -> Any:
    """The actor's class. Whoever asks may hold a placement group, which SPREAD keeps it out of."""
    return ray.remote(
        num_cpus=0, max_restarts=-1, max_task_retries=RETRIES, scheduling_strategy="SPREAD"
    )(RewardProcess)


def _result(share: Any) -> Scores:
    """The result of a task. Our own exceptions come out as they were raised there."""
    try:
        return ray.get(share)
    except RayTaskError as error:
        if isinstance(error.cause, RaymdmError):
            raise error.cause from None
        raise
    except RayError as error:
        reason = str(error).strip().partition("\n")[0]
        raise RunError(
            f"a process that computes rewards was lost {RETRIES + 1} times ({reason}); does the "
            "machine have memory for it?"
        ) from error
