"""Speed of reinforcement learning: rollouts against their bare forwards, rounds, traces.

rollouts: groups of sampled responses in batches, with traces, log-probabilities and all made
compact for the hand-over, against the very same forwards (inputs recorded, nothing decided).
Tokens are drawn by Gumbel noise, and by inverting the cumulative distribution.

rounds: the share of whole rounds that is not in the model's forwards and backwards (`rl_rounds`).

traces: the bytes of a compact trace, which depend on sizes only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from raymdm.benchmarks.alternation import Ratio, ratio
from raymdm.benchmarks.decode_work import Forwards, Subject, random_prompts, subjects, timed
from raymdm.benchmarks.device import default_device
from raymdm.benchmarks.request import Report, Request
from raymdm.benchmarks.rl_rounds import COMPUTED, RoundPlan, RoundTimes, measure_rounds
from raymdm.config import Config, read_config
from raymdm.config.policy import RolloutDecodingSection
from raymdm.decoding import Trace
from raymdm.decoding.schedule import even_schedule
from raymdm.errors import RunError
from raymdm.models import Backbone
from raymdm.policy.compact import compact, size
from raymdm.reinforcement.rollouts import Ask, roll

SAMPLINGS = ("gumbel", "categorical")
MODELS = ("tiny", "5m")
VOCABULARIES = {"LLaDA": 126464, "5m": 4096}

_BASE: dict[str, Any] = {
    "training": {"micro_batch_size": 16, "learning_rate": 1e-4, "schedule": "constant"},
    "policy": {
        "prompts_per_step": 2,
        "group_size": 8,
        "decoding": {"response_length": 64, "steps": 16},
    },
}


@dataclass(frozen=True)
class Plan:
    """Sizes of the rollouts that are timed, and of the traces that are weighed."""

    prompts: int = 4
    group: int = 8
    shortest: int = 16
    longest: int = 96
    response_length: int = 64
    steps: int = 8
    threads: int = 1
    blocks: int = 3
    trace_length: int = 512
    trace_steps: int = 128


@dataclass(frozen=True)
class RolloutSpeed:
    """Rollouts of one model against the bare forwards.

    Attributes:
        model: name of the subject.
        sampling: how tokens are drawn.
        forwards: that each side made in a block.
        positions: whose logits each side computed in a block.
        speed: response tokens per second of the rollouts, median.
        bare: of the forwards alone.
        of_bare: the first over the second, of neighbouring blocks.
    """

    model: str
    sampling: str
    forwards: int
    positions: int
    speed: float
    bare: float
    of_bare: Ratio


@dataclass(frozen=True)
class TraceSize:
    """Bytes of a compact trace, and of the same as a Trace holds it."""

    vocabulary: str
    tokens: int
    steps: int
    length: int
    bytes: int
    as_tensors: int


def bench(request: Request) -> Report:
    """Figures of the tiny and the 5M model."""
    gpu = {"cluster": {"gpus_per_worker": int(default_device().type == "cuda")}}
    configs = {
        name: request.settings({**read_config([f"models/{name}"]), **_BASE, **gpu})
        for name in MODELS
    }
    threads = next(iter(configs.values())).training.threads_per_worker
    plan = Plan(threads=threads, blocks=request.blocks or Plan.blocks)
    rounds = RoundPlan(rounds=request.blocks or RoundPlan.rounds)
    told = Console(stderr=True).print
    chosen = [subject for subject in subjects() if subject.name in MODELS]
    rollouts = measure_rollouts(plan, chosen, told)
    times = measure_all_rounds(configs, request.folder, rounds, told)
    traces = [weigh(name, tokens, plan) for name, tokens in VOCABULARIES.items()]
    figures = {
        "plan": {**asdict(plan), "rounds": asdict(rounds)},
        "rollouts": [asdict(row) for row in rollouts],
        "rounds": [asdict(row) for row in times],
        "traces": [asdict(row) for row in traces],
    }
    tables = [rollout_table(rollouts), *map(round_table, times), trace_table(traces)]
    return Report(tables, figures)


def rollout_table(found: Sequence[RolloutSpeed]) -> Table:
    """One row a model and way to draw."""
    made = Table(
        title="rollouts in batches, against the same forwards (aim: 0.9)",
        title_justify="left",
        caption="traces, log-probabilities and compact arrays included",
    )
    for column in ("model", "drawn by", "tokens/s", "forwards alone", "of them"):
        made.add_column(column, justify="left" if column in ("model", "drawn by") else "right")
    for row in found:
        speeds = f"{row.speed:,.0f}", f"{row.bare:,.0f}"
        made.add_row(row.model, row.sampling, *speeds, str(row.of_bare))
    return made


def round_table(found: RoundTimes) -> Table:
    """Where the seconds of a model's rounds went."""
    aim = " (aim: 20%)" if found.model == "5m" else ""
    wall = sum(found.seconds.values())
    made = Table(
        title=f"{found.model}: {found.rounds} rounds, {found.rows} rows forward",
        title_justify="left",
        caption=f"outside forwards and backwards {np.median(found.outside):.1%}{aim}, "
        f"{min(found.outside):.1%} to {max(found.outside):.1%} of a round",
    )
    made.add_column("part")
    made.add_column("seconds of a round", justify="right")
    made.add_column("share", justify="right")
    for part, seconds in found.seconds.items():
        style = None if part in COMPUTED else "bold"
        made.add_row(part, f"{seconds / found.rounds:.3f}", f"{seconds / wall:.1%}", style=style)
    return made


def trace_table(found: Sequence[TraceSize]) -> Table:
    """One row a vocabulary."""
    made = Table(title="compact traces (aim: 1 MB)", title_justify="left")
    made.add_column("vocabulary")
    for column in ("tokens", "steps x positions", "MB", "MB as tensors"):
        made.add_column(column, justify="right")
    for row in found:
        sizes = f"{row.bytes / 1e6:.3f}", f"{row.as_tensors / 1e6:.3f}"
        made.add_row(row.vocabulary, f"{row.tokens:,}", f"{row.steps} x {row.length}", *sizes)
    return made


def measure_rollouts(
    plan: Plan, subjects: Sequence[Subject], told: Callable[[str], None]
) -> list[RolloutSpeed]:
    """Every model's rollouts, by either way to draw, against the forwards of the first.

    Raises:
        RunError: sides that made other forwards.
    """
    torch.set_num_threads(plan.threads)
    found = []
    for subject in subjects:
        told(f"{subject.name}: rollouts")
        found += _rollouts(plan, subject)
    return found


def _rollouts(plan: Plan, subject: Subject) -> list[RolloutSpeed]:
    model = subject.build().eval()
    prompts = random_prompts(subject, plan.prompts, plan.shortest, plan.longest)

    def rollouts(sampling: str) -> None:
        settings = RolloutDecodingSection.model_validate(
            {
                "response_length": plan.response_length,
                "steps": plan.steps,
                "sampling": sampling,
                "stop_at_eos": False,  # as many forwards whatever is drawn
            }
        )
        asks = [
            Ask(prompt, number, rollout, settings)
            for number, prompt in enumerate(prompts)
            for rollout in range(plan.group)
        ]
        for trace in roll(model, asks, batch_size=64):
            compact(trace)

    forwards = Forwards(model, lambda: rollouts(SAMPLINGS[0]))
    sides: dict[str, Callable[[], object]] = {
        sampling: lambda sampling=sampling: rollouts(sampling)  # type: ignore[misc]
        for sampling in SAMPLINGS
    }
    sides["forwards"] = forwards
    counted = {name: Counted(model, side) for name, side in sides.items()}
    seconds = timed(counted, plan.blocks)
    work = {name: side.work for name, side in counted.items()}
    check_same_forwards(work)
    tokens = len(prompts) * plan.group * plan.response_length
    return [
        RolloutSpeed(
            model=subject.name,
            sampling=sampling,
            forwards=work[sampling][0] // plan.blocks,
            positions=work[sampling][2] // plan.blocks,
            speed=float(np.median(tokens / seconds[sampling])),
            bare=float(np.median(tokens / seconds["forwards"])),
            of_bare=ratio(seconds["forwards"], seconds[sampling]),
        )
        for sampling in SAMPLINGS
    ]


class Counted:
    """A side, with what it had the model do: forwards, tokens read, positions predicted."""

    def __init__(self, model: Backbone, side: Callable[[], object]) -> None:
        self.model, self.side = model, side
        self._read: list[int] = []
        self._predicted: list[Tensor] = []

    def __call__(self) -> None:
        """The side."""
        hook = self.model.register_forward_pre_hook(self._count, with_kwargs=True)
        self.side()
        hook.remove()

    def _count(self, _: Any, given: Sequence[Tensor], named: Mapping[str, Any]) -> None:
        self._read.append(given[0].numel())
        self._predicted.append(named["select"].sum())

    @property
    def work(self) -> tuple[int, int, int]:
        """Of all calls together."""
        return len(self._read), sum(self._read), sum(map(int, self._predicted))


def check_same_forwards(work: Mapping[str, tuple[int, int, int]]) -> None:
    """Raises RunError where sides had the model do different work."""
    if len(set(work.values())) > 1:
        said = "; ".join(
            f"{side}: {forwards} forwards, {read} tokens, {predicted} predicted"
            for side, (forwards, read, predicted) in work.items()
        )
        raise RunError(
            f"bench: sides did not make the same forwards ({said}), so no ratio is given"
        )


def measure_all_rounds(
    configs: Mapping[str, Config], folder: Path, plan: RoundPlan, told: Callable[[str], None]
) -> list[RoundTimes]:
    """The rounds of every model."""
    found = []
    for name, config in configs.items():
        told(f"{name}: rounds")
        found.append(measure_rounds(name, config, folder / name, plan))
    return found


def weigh(name: str, tokens: int, plan: Plan) -> TraceSize:
    """The size of a trace in which every step leaves as many positions standing."""
    length, steps = plan.trace_length, plan.trace_steps
    random = np.random.default_rng(0)
    mask = tokens - 1
    drawn = torch.from_numpy(random.integers(mask, size=(steps, length)))
    # The step after which each position stands.
    standing = random.permutation(np.repeat(np.arange(steps), even_schedule(length, steps)))
    revealed = torch.from_numpy(standing)
    step = torch.arange(steps)[:, None]
    final = drawn[revealed, torch.arange(length)]
    open_ = step <= revealed
    unknown = torch.full((steps, length), torch.nan)
    likely = torch.from_numpy(random.random((steps, length))).float()
    trace = Trace(
        start=torch.full((length,), mask),
        states=final.where(step >= revealed, mask),
        predictions=drawn.where(open_, final),
        confidence=likely.where(open_, unknown),
        positions=torch.arange(length),
        log_probability=likely.log().where(open_, unknown),
    )
    tensors = [value for value in vars(trace).values() if value is not None]
    return TraceSize(
        vocabulary=name,
        tokens=tokens,
        steps=steps,
        length=length,
        bytes=size(compact(trace)),
        as_tensors=sum(tensor.nbytes for tensor in tensors),
    )
