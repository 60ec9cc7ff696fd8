"""What `raymdm bench decode` works on: models with random weights, prompts, recorded forwards."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raymdm.benchmarks.alternation import alternate, check_same_work
from raymdm.benchmarks.device import default_device
from raymdm.benchmarks.step import ONE_BILLION
from raymdm.config import read_config
from raymdm.config.model import ModelSection
from raymdm.models import Backbone, SpecialTokens, build_model
from raymdm.models.initial import shape_from_config
from raymdm.models.weights import PRECISIONS

Prompts = list[list[int]]
Responses = list[list[int]]

DIFFERENT = 0.01
"""The share of tokens in which sides may differ: where two predictions are as good as equal,
rounding decides, and what is written afterwards follows from it."""


@dataclass(frozen=True)
class Subject:
    """A model with random weights, wide enough that its choices are not close."""

    name: str
    model: ModelSection
    vocabulary_size: int
    initializer_std: float
    precision: str = "fp32"

    def build(self) -> Backbone:
        """On the device, in the subject's precision."""
        last = self.vocabulary_size - 1
        special = SpecialTokens(mask_token_id=last, eos_token_id=last - 1, pad_token_id=last - 2)
        shape = shape_from_config(self.model, vocabulary_size=self.vocabulary_size, tokens=special)
        model = build_model(shape, 0, self.initializer_std)
        return model.to(default_device(), PRECISIONS[self.precision])


def section(name: str) -> ModelSection:
    """The sizes of a shipped model."""
    return ModelSection.model_validate(read_config([f"models/{name}"])["model"])


def subjects() -> list[Subject]:
    """The models to measure here."""
    shipped = [("tiny", 259, 0.2), ("5m", 4096, 0.1)]
    made = [Subject(name, section(name), tokens, std) for name, tokens, std in shipped]
    if default_device().type == "cuda":
        made.append(Subject("1b", ModelSection.model_validate(ONE_BILLION), 126464, 0.05, "bf16"))
    return made


def random_prompts(subject: Subject, rows: int, shortest: int, longest: int) -> Prompts:
    """Of mixed length, of all tokens but the special ones."""
    random = np.random.default_rng(rows)
    lengths = random.integers(shortest, longest + 1, size=rows)
    return [random.integers(subject.vocabulary_size - 3, size=size).tolist() for size in lengths]


def check_same_tokens(
    model: Backbone, sides: Mapping[str, Callable[[Prompts], Responses]], prompts: Prompts
) -> None:
    """Raises RunError where sides write other tokens than the first one. In float32: in half
    precision batches of another shape round differently.
    """
    dtype = next(model.parameters()).dtype
    model.float()
    first, *others = (np.array(side(prompts)) for side in sides.values())
    model.to(dtype)
    different = max(float((first != other).mean()) for other in others)
    check_same_work(different, DIFFERENT, f"tokens of {' and '.join(sides)}")


class Forwards:
    """The forwards of a decoding and nothing else; called, it repeats them over the same inputs."""

    def __init__(self, model: Backbone, decode: Callable[[], object]) -> None:
        self.model = model
        self.inputs: list[tuple[tuple[Tensor | None, ...], Mapping[str, Any]]] = []
        hook = model.register_forward_pre_hook(
            lambda _, given, named: self.inputs.append(_copied(given, named)), with_kwargs=True
        )
        decode()
        hook.remove()

    @torch.no_grad()
    def __call__(self) -> None:
        """All of them."""
        for given, named in self.inputs:
            self.model(*given, **named)


def _copied(
    given: Sequence[Tensor | None], named: Mapping[str, Any]
) -> tuple[tuple[Tensor | None, ...], Mapping[str, Any]]:
    """What is written into later on, as it is now."""
    return tuple(None if x is None else x.clone() for x in given), {
        name: x.clone() if isinstance(x, Tensor) else x for name, x in named.items()
    }


def timed(sides: Mapping[str, Callable[[], object]], blocks: int) -> dict[str, np.ndarray]:
    """Seconds of every side, [blocks], by name."""

    def step(side: Callable[[], object]) -> float:
        side()
        return 0.0

    _, seconds = alternate(
        [lambda side=side: step(side) for side in sides.values()],  # type: ignore[misc]
        blocks=blocks,
        steps=1,
        warm_up=0,
    )
    return dict(zip(sides, seconds, strict=True))
