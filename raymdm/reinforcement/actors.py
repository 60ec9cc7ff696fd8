"""Rollouts by Ray actors, which hold models of their own and get the weights as they change.

Rank 0 hands the asks of all ranks out in batches and the traces back. Each call carries a reference
to the weights that it is to be made with, which an actor fetches where it does not have them: one
that was lost is started again by Ray, with its call, and gives the same rollouts.
"""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
import torch
import torch.distributed
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raymdm.config import Config
from raymdm.decoding import Trace
from raymdm.decoding.batching import PADDING, batches
from raymdm.errors import RaymdmError
from raymdm.models import Backbone, ModelShape
from raymdm.policy.compact import compact, expand
from raymdm.reinforcement.rollouts import Ask, roll
from raymdm.training.engine import trained_state
from raymdm.training.engine_run import pick_device
from raymdm.training.starting import trained_model

RETRIES = 3
"""How often a batch is rolled out again whose actor was lost."""
Weights = dict[str, np.ndarray]
"""The bytes of the trained weights by name."""


class RolloutActor:
    """One process with a model: the run's start, then whatever weights come with a call."""

    def __init__(self, config: Config, shape: ModelShape, batch_size: int) -> None:
        torch.set_num_threads(config.training.threads_per_worker)
        self.model = trained_model(config, shape, pick_device(config)).eval()
        self.batch_size = batch_size
        self.version = 0

    def roll(
        self, asks: list[Ask], version: int, weights: list[Any]
    ) -> tuple[list[dict[str, np.ndarray]] | RaymdmError, int]:
        """Compact traces, or the error that says why there are none; and this process's id.

        Args:
            asks: a batch.
            version: of the weights to be used.
            weights: a reference to them, unfetched; empty for those of the start.
        """
        try:
            if version != self.version and weights:
                load_weights(self.model, ray.get(weights[0]))
                self.version = version
            traces = roll(self.model, asks, self.batch_size)
            return [compact(trace) for trace in traces], os.getpid()
        except RaymdmError as error:  # as a value: Ray would wrap it
            return error, os.getpid()


def pack_weights(state: dict[str, torch.Tensor]) -> Weights:
    """Weights as bytes that Ray's object store can hold without copies."""
    return {
        name: tensor.contiguous().view(-1).view(torch.uint8).numpy()
        for name, tensor in state.items()
    }


def load_weights(model: Backbone, weights: Weights) -> None:
    """Copy packed weights into a model of the same kind and precision."""
    names = dict(model.named_parameters())
    if not weights.keys() <= names.keys():
        raise ValueError(f"weights of another model: {sorted(weights.keys() - names.keys())[:3]}")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the store's memory cannot be written to, nor is it
        for name, content in weights.items():
            parameter = names[name]
            given = torch.from_numpy(content).view(parameter.dtype)
            parameter.copy_(given.view(parameter.shape))


class ActorRollouts:
    """A pool of actors, owned by rank 0: they end with it.

    Args:
        config: `policy.rollouts`, and `cluster.*` for the size of each.
        shape: of the model.
    """

    def __init__(self, config: Config, shape: ModelShape) -> None:
        assert config.policy is not None
        section = config.policy.rollouts
        self.batch_size = section.batch_size
        self.first = torch.distributed.get_rank() == 0
        self.ranks = torch.distributed.get_world_size()
        self.actors: list[Any] = []
        self._version, self._weights = 0, list[Any]()
        self.restarts = 0
        self._pending: dict[str, _Order] = {}
        self._processes: dict[int, int] = {}
        self._next = 0
        if self.first:
            remote = ray.remote(RolloutActor).options(
                num_cpus=config.cluster.cpus_per_worker,
                num_gpus=config.cluster.gpus_per_worker,
                max_restarts=-1,
                max_task_retries=RETRIES,
                # Not inside the room that Ray Train or Tune has reserved for the worker itself.
                scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group=None),
                runtime_env={"env_vars": {"OMP_NUM_THREADS": _threads(config)}},
            )
            self.actors = [
                remote.remote(config, shape, self.batch_size) for _ in range(section.actors or 1)
            ]

    def begin(self, key: str, asks: Sequence[Ask], engine: Any, version: int) -> None:
        """See `Rollouts`."""
        if version != self._version:
            state = trained_state(engine)
            if state is not None:
                self._weights = [ray.put(pack_weights(state))]
            self._version = version
        gathered: list[list[Ask]] = [[] for _ in range(self.ranks)]
        torch.distributed.all_gather_object(gathered, list(asks))
        if self.first:
            self._pending[key] = self._order(gathered, version)

    def _order(self, gathered: list[list[Ask]], version: int) -> "_Order":
        asks = [ask for part in gathered for ask in part]
        order = _Order([len(part) for part in gathered])
        for settings in dict.fromkeys(ask.settings for ask in asks):
            places = [place for place, ask in enumerate(asks) if ask.settings == settings]
            lengths = [len(asks[place].prompt) for place in places]
            for batch in batches(lengths, self.batch_size, PADDING):
                chosen = [places[at] for at in batch]
                number = self._next % len(self.actors)
                self._next += 1
                call = self.actors[number].roll.remote(
                    [asks[place] for place in chosen], version, self._weights
                )
                order.calls.append((number, chosen, call))
        return order

    def collect(self, key: str) -> list[Trace]:
        """See `Rollouts`.

        Raises:
            RaymdmError: that an actor gave back.
            RuntimeError: an actor was lost again and again, or failed.
        """
        parts: list[Any] = [None] * self.ranks
        if self.first:
            parts = self._traces(self._pending.pop(key))
        mine: list[Any] = [None]
        torch.distributed.scatter_object_list(mine, parts if self.first else None, src=0)
        if isinstance(mine[0], Exception):
            raise mine[0]
        return [expand(arrays) for arrays in mine[0]]

    def _traces(self, order: "_Order") -> list[Any]:
        """Compact traces for every rank; or, for all of them, what went wrong."""
        made: dict[int, dict[str, np.ndarray]] = {}
        for number, places, call in order.calls:
            try:
                found, process = ray.get(call)
            except ray.exceptions.RayError as error:
                # Lost again and again, or a mistake of ours: a failure of the worker that asked.
                return [RuntimeError(f"a rollout actor failed: {error}")] * self.ranks
            if isinstance(found, RaymdmError):
                return [found] * self.ranks
            if self._processes.setdefault(number, process) != process:
                self._processes[number] = process
                self.restarts += 1
            made.update(zip(places, found, strict=True))
        parts, start = [], 0
        for size in order.sizes:
            parts.append([made[place] for place in range(start, start + size)])
            start += size
        return parts

    def close(self) -> None:
        """End the actors: the process that owns them may go on to another run."""
        for actor in self.actors:
            ray.kill(actor)
        self.actors = []


class _Order:
    """Calls on their way: which actor, which places among all asks, and the reference."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.calls: list[tuple[int, list[int], Any]] = []


def _threads(config: Config) -> str:
    return str(config.training.threads_per_worker)
