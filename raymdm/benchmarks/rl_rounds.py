"""Where the seconds of a policy's rounds go, measured around the model's forwards and backwards.

Whole rounds of one worker in this process, rewards computed by a checker of it, without Ray. The
prompts are random tokens, and so are the responses of a model with random weights: a reward on
their length tells them apart, the task's own score is computed beside it, and no two texts are
equal, which is the most work that rewards can be.
"""

import random
import string
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from raymdm.benchmarks.device import wait_for_device
from raymdm.benchmarks.rows import write_random_rows
from raymdm.command import import_modules
from raymdm.config import Config
from raymdm.config.loading import merge_overlay, validate
from raymdm.data.tokenizer import train_bpe
from raymdm.errors import RunError
from raymdm.models import SpecialTokens
from raymdm.reinforcement.job import make_policy_job
from raymdm.reinforcement.worker import PolicyWorker
from raymdm.training import RunDirectory
from raymdm.training.checkpoint import Checkpoints
from raymdm.training.engine import process_group_of_one

IMPORTS = ["raymdm.benchmarks.length_reward"]
TASK = {"name": "reasoning_gym:basic_arithmetic", "prompt_template": "{expression}="}
REFERENCE = {"question": "1 + 2", "answer": "3", "metadata": {}}

COMPUTED = ("rollout forwards", "reference forwards", "update forwards", "update backwards")
"""The parts of a round that are the model's own."""


@dataclass(frozen=True)
class RoundPlan:
    """Sizes: of the prompts, and how many rounds."""

    prompts: int = 64
    shortest: int = 16
    longest: int = 48
    vocabulary_size: int = 4096
    warm_up: int = 1
    rounds: int = 3


@dataclass(frozen=True)
class RoundTimes:
    """What was measured.

    Attributes:
        model: its name.
        parameters: of it.
        rounds: that were timed.
        rows: that went forward in them, of rollouts, reference and updates.
        seconds: of all of them by part; together all their time.
        outside: the share that is not in the model's forwards and backwards, of every round.
    """

    model: str
    parameters: int
    rounds: int
    rows: int
    seconds: dict[str, float]
    outside: list[float]


class Clock:
    """Adds up the seconds of calls, and the rows that went forward."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys((*COMPUTED, "optimiser"), 0.0)
        self.rows = 0
        self._started = 0.0

    def watch(self, model: nn.Module, name: Callable[[], str]) -> None:
        """Time a model's forwards from now on, under the name that each has when it is made."""

        def before(_: nn.Module, given: tuple[Any, ...]) -> None:
            self.rows += len(given[0])
            self._start()

        model.register_forward_pre_hook(before)
        model.register_forward_hook(lambda *_: self._stop(name()))

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, timed."""

        @wraps(call)
        def around(*given: Any, **named: Any) -> Any:
            self._start()
            found = call(*given, **named)
            self._stop(name)
            return found

        return around

    def _start(self) -> None:
        wait_for_device()
        self._started = time.perf_counter()

    def _stop(self, name: str) -> None:
        wait_for_device()
        self.seconds[name] += time.perf_counter() - self._started


def measure_rounds(name: str, config: Config, folder: Path, plan: RoundPlan) -> RoundTimes:
    """Time whole rounds of a new model.

    Args:
        name: of the model.
        config: model, policy and training; data, steps and rewards are replaced.
        folder: an empty one, for prompts and run directory.
        plan: how much.

    Raises:
        RunError: a round diverged or trained on nothing, or other rows went forward than the rounds
            say: then no share is given.
    """
    import_modules(IMPORTS)
    config = _fitted(config, folder, plan)
    job = make_policy_job(config, RunDirectory(config.run_dir))
    RunDirectory.open(config, job.manifest.fingerprint, resume=False)
    with process_group_of_one(gpu=config.cluster.gpus_per_worker > 0):
        worker = PolicyWorker(job, Checkpoints.direct(config, job.run))
        try:
            for _ in range(plan.warm_up):
                _round(worker)
            return _timed(name, worker, plan.rounds)
        finally:
            worker.rounds.close()


def _timed(name: str, worker: PolicyWorker, rounds: int) -> RoundTimes:
    clock, engine = Clock(), worker.engine
    policy = engine.module
    clock.watch(policy, lambda: "update forwards" if policy.training else "rollout forwards")
    reference = worker.update.reference
    if reference is not None and reference.copy is not None:
        clock.watch(reference.copy, lambda: "reference forwards")
    engine.backward = clock.timed("update backwards", engine.backward)
    engine.step = clock.timed("optimiser", engine.step)
    said = worker.counts["forwards"]
    rolling, judging, wall, outside = 0.0, 0.0, 0.0, []
    for _ in range(rounds):
        before = _computed(clock)
        started = time.perf_counter()
        row = _round(worker)
        wait_for_device()
        seconds = time.perf_counter() - started
        outside.append(1 - (_computed(clock) - before) / seconds)
        wall += seconds
        rolling += row["rollout_seconds"]
        judging += row["reward_seconds"]
    said = worker.counts["forwards"] - said
    if clock.rows != said:
        raise RunError(
            f"bench: {clock.rows} rows went forward where the rounds say {said}, so what was timed "
            "is not what they did and no share is given"
        )
    parts = {
        **clock.seconds,
        "rolling out beside forwards": rolling - clock.seconds["rollout forwards"],
        "rewards": judging,
    }
    return RoundTimes(
        model=name,
        parameters=sum(p.numel() for p in policy.parameters()),
        rounds=rounds,
        rows=clock.rows,
        seconds={**parts, "everything else": wall - sum(parts.values())},
        outside=outside,
    )


def _computed(clock: Clock) -> float:
    return sum(clock.seconds[part] for part in COMPUTED)


def _round(worker: PolicyWorker) -> dict[str, Any]:
    """One round; its row of the metrics."""
    problem = worker.step()
    assert worker.sink is not None
    row: dict[str, Any] = worker.sink.rows[-1]
    if problem is not None or not row["trained_rows"]:
        raise RunError(f"bench: {problem or 'a round trained on nothing'}, so no share is given")
    return row


def _fitted(config: Config, folder: Path, plan: RoundPlan) -> Config:
    """The configuration on prompts in `folder`: one worker, as many rounds as planned."""
    assert config.policy is not None
    data = _write_prompts(folder / "data", plan)
    steps = plan.warm_up + plan.rounds + 1  # the last one would validate
    overlay = {
        "run_dir": str(folder / "run"),
        "imports": IMPORTS,
        "data": {"folder": str(data), "sources": []},
        "training": {"steps": steps, "epochs": None, "validate_every": 0, "checkpoint_every": 0},
        "cluster": {"workers": 1},
    }
    fitted = validate(merge_overlay(config.model_dump(), overlay))
    assert fitted.policy is not None
    policy = fitted.policy.model_copy(update={"rewards": {"length": 1.0}})
    return fitted.model_copy(update={"policy": policy})


def _write_prompts(folder: Path, plan: RoundPlan) -> Path:
    """Prompts of random tokens, with a tokenizer of random words."""
    letters = random.Random(0)
    words = [
        "".join(letters.choices(string.ascii_lowercase, k=letters.randint(2, 6)))
        for _ in range(4 * plan.vocabulary_size)
    ]
    tokenizer = train_bpe(words, plan.vocabulary_size, "<|mdm_mask|>")
    drawn = np.random.default_rng(0)
    prompts = drawn.integers(plan.shortest, plan.longest + 1, plan.prompts)
    write_random_rows(
        folder,
        lengths=prompts + 1,
        prompt_lengths=prompts,
        vocabulary_size=len(tokenizer),
        tokens=SpecialTokens(
            tokenizer.mask_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        ),
        task=TASK,
        reference=REFERENCE,
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder
