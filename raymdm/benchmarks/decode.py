"""Speed of decoding: batches against their bare forwards, caches and thresholds, LLaDA's own loop.

Three parts, each with its sides in turn over the same prompts of mixed length:

batches: all prompts in batches against the very same forwards (inputs recorded, nothing decided),
and against one prompt after the other.

caches: a response of many blocks, every step over whole rows against a `dual` cache, a threshold,
and both. What a cache saves depends on sizes only, and is measured on every model; how far a
threshold goes depends on the text, so it is measured on a tiny model that has learned one
(`repetitions`), with the share of responses that are right.

loop: LLaDA's loop, written out (`plain_decoding`), without noise and with.

Before anything is timed, sides that must write the same tokens do so in float32 on a few prompts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from raymdm.benchmarks.alternation import Ratio, ratio
from raymdm.benchmarks.decode_work import (
    Forwards,
    Prompts,
    Responses,
    Subject,
    check_same_tokens,
    random_prompts,
    section,
    subjects,
    timed,
)
from raymdm.benchmarks.plain_decoding import plain_decoding
from raymdm.benchmarks.repetitions import LETTERS, exact_match, keys, teach
from raymdm.benchmarks.request import Report, Request
from raymdm.config.decoding import DecodingSection
from raymdm.decoding import generate
from raymdm.models import Backbone


@dataclass(frozen=True)
class Plan:
    """Sizes: of prompts and responses, and of the training of the tiny model."""

    prompts: int = 64
    shortest: int = 16
    longest: int = 96
    response_length: int = 64
    steps: int = 8
    long_response: int = 256
    long_block: int = 32
    long_steps: int = 64
    long_prompts: int = 4
    threshold: float = 0.9
    key_length: int = 8
    keys: int = 12
    lessons: int = 800
    loop_prompts: int = 8
    checked: int = 4
    threads: int = 1
    blocks: int = 2


@dataclass(frozen=True)
class Comparison:
    """One side against another.

    Attributes:
        part: batches, caches or loop.
        model: name of the subject.
        side, against: what is compared.
        speed: response tokens per second of the side, median.
        faster: how many times as fast as the other.
        aim: the ratio that is wanted; None where there is none.
        score, score_against: shares of right responses, where there are right ones.
    """

    part: str
    model: str
    side: str
    against: str
    speed: float
    faster: Ratio
    aim: float | None = None
    score: float | None = None
    score_against: float | None = None


def bench(request: Request) -> Report:
    """Figures of the tiny and the 5M model, and on a GPU of one with 1.3G parameters."""
    config = request.settings({})
    plan = Plan(threads=config.training.threads_per_worker, blocks=request.blocks or Plan.blocks)
    found = measure_decoding(plan, subjects(), Console(stderr=True).print)
    return Report(tables(found), {"plan": asdict(plan), "rows": [asdict(row) for row in found]})


TITLES = {
    "batches": "batches of mixed length, against the same forwards and against one by one",
    "caches": "kept keys and values, and a threshold",
    "loop": "without a cache, against LLaDA's loop, without noise and with",
}


def tables(found: Sequence[Comparison]) -> list[Table]:
    """One of every part."""
    made = {part: Table(title=title, title_justify="left") for part, title in TITLES.items()}
    made["caches"].caption = (
        "right: responses of a tiny model that has learned to repeat a key with a shift; "
        "how far a threshold goes depends on the text"
    )
    for part, table in made.items():
        table.add_column("model")
        table.add_column("side / against")
        for column in ("tokens/s", "times as fast", "aim", *["right"] * (part == "caches")):
            table.add_column(column, justify="right")
    for row in found:
        score = "" if row.score is None else f"{row.score:.0%} / {row.score_against:.0%}"
        cells = [row.model, f"{row.side} / {row.against}", f"{row.speed:,.0f}", str(row.faster)]
        cells += ["" if row.aim is None else f"{row.aim:g}", score]
        made[row.part].add_row(*cells[: len(made[row.part].columns)])
    return list(made.values())


def measure_decoding(
    plan: Plan, subjects: Sequence[Subject], told: Callable[[str], None]
) -> list[Comparison]:
    """All parts of all subjects, and the trained model's.

    Raises:
        RunError: sides that should write the same tokens do not.
    """
    torch.set_num_threads(plan.threads)
    found = []
    for subject in subjects:
        model = subject.build()
        for part in (measure_batches, measure_caches, measure_loop):
            told(f"{subject.name}: {part.__name__.removeprefix('measure_')}")
            found += part(plan, subject, model)
    told("caches of a model that has learned a text")
    return found + measure_taught(plan)


def measure_batches(plan: Plan, subject: Subject, model: Backbone) -> list[Comparison]:
    """Batched decoding against its own forwards, and against one prompt after the other."""
    prompts = random_prompts(subject, plan.prompts, plan.shortest, plan.longest)
    settings = DecodingSection(
        response_length=plan.response_length, steps=plan.steps, stop_at_eos=False
    )

    def one_by_one(chosen: Prompts) -> Responses:
        return generate(model, chosen, settings, batch_size=1)

    def batched(chosen: Prompts) -> Responses:
        return generate(model, chosen, settings)

    sides = {"one by one": one_by_one, "batched": batched}
    check_same_tokens(model, sides, prompts[: plan.checked])
    forwards = Forwards(model, lambda: batched(prompts))
    seconds = timed(
        {
            "batched": lambda: batched(prompts),
            "its forwards": forwards,
            "one by one": lambda: one_by_one(prompts),
        },
        plan.blocks,
    )
    tokens = len(prompts) * plan.response_length
    return [
        compared("batches", subject, "batched", against, seconds, tokens, aim)
        for against, aim in (("its forwards", 0.9), ("one by one", 1.0))
    ]


def measure_caches(plan: Plan, subject: Subject, model: Backbone) -> list[Comparison]:
    """A cache's own gain, at a fixed number of steps."""
    prompts = random_prompts(subject, plan.long_prompts, plan.shortest, plan.longest)
    settings = DecodingSection(
        response_length=plan.long_response,
        block_length=plan.long_block,
        steps=plan.long_steps,
        stop_at_eos=False,
    )
    sides = {
        name: lambda name=name: generate(  # type: ignore[misc]
            model, prompts, settings.model_copy(update={"cache": name})
        )
        for name in ("none", "prefix", "dual")
    }
    seconds = timed(sides, plan.blocks)
    tokens = len(prompts) * plan.long_response
    return [
        compared("caches", subject, name, "none", seconds, tokens) for name in ("prefix", "dual")
    ]


def measure_taught(plan: Plan) -> list[Comparison]:
    """Cache and threshold, with the share of right responses, on a tiny model that has learned."""
    tiny = section("tiny")
    subject = Subject("tiny, taught", tiny, LETTERS + 3, tiny.initializer_std)
    model = subject.build()
    teach(
        model,
        key_length=plan.key_length,
        response_length=plan.long_response,
        steps=plan.lessons,
    )
    key = keys(plan.keys, plan.key_length, 10**6)
    plain = DecodingSection(response_length=plan.long_response, block_length=plan.long_block)
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "dual": {"cache": "dual"},
        "threshold": {"threshold": plan.threshold},
        "dual + threshold": {"cache": "dual", "threshold": plan.threshold},
    }
    scores: dict[str, float] = {}

    def decode(name: str) -> None:
        responses = generate(model, key.tolist(), plain.model_copy(update=ways[name]))
        scores[name] = exact_match(key, responses)

    seconds = timed(
        {name: lambda name=name: decode(name) for name in ways},  # type: ignore[misc]
        plan.blocks,
    )
    rows = []
    for name in list(ways)[1:]:
        aim = 4.0 if name == "dual + threshold" else None
        row = compared(
            "caches", subject, name, "plain", seconds, key.shape[0] * plan.long_response, aim
        )
        rows.append(replace(row, score=scores[name], score_against=scores["plain"]))
    return rows


def measure_loop(plan: Plan, subject: Subject, model: Backbone) -> list[Comparison]:
    """Without a cache, against LLaDA's loop written out; noise draws other tokens on either side,
    from as many forwards.
    """
    prompts = random_prompts(subject, plan.loop_prompts, plan.shortest, plan.longest)
    sizes: dict[str, int] = {
        "response_length": plan.response_length,
        "block_length": plan.long_block,
        "steps": plan.steps,
    }
    plain = DecodingSection.model_validate({**sizes, "stop_at_eos": False})
    rows = []
    for temperature in (0.0, 0.5):

        def ours(chosen: Prompts, temperature: float = temperature) -> Responses:
            return generate(model, chosen, plain.model_copy(update={"temperature": temperature}))

        def loop(chosen: Prompts, temperature: float = temperature) -> Responses:
            return plain_decoding(model, chosen, **sizes, temperature=temperature)

        if not temperature:
            sides = {"LLaDA's loop": loop, "decoding": ours}
            check_same_tokens(model, sides, prompts[: plan.checked])
        name, other = f"noise {temperature:g}", "LLaDA's loop"
        seconds = timed(
            {name: lambda: ours(prompts), other: lambda: loop(prompts)},
            plan.blocks,
        )
        tokens = len(prompts) * plan.response_length
        rows.append(compared("loop", subject, name, other, seconds, tokens, 2.0))
    return rows


def compared(
    part: str,
    subject: Subject,
    side: str,
    against: str,
    seconds: Mapping[str, np.ndarray],
    tokens: int,
    aim: float | None = None,
) -> Comparison:
    """One side against another, both having written so many tokens in a block."""
    return Comparison(
        part=part,
        model=subject.name,
        side=side,
        against=against,
        speed=float(np.median(tokens / seconds[side])),
        faster=ratio(seconds[against], seconds[side]),
        aim=aim,
    )
