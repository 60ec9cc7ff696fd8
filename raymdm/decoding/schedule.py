"""How many tokens each denoising step reveals, block by block: a row's plan, before it starts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from raymdm.config.decoding import DecodingSection
from raymdm.errors import ConfigurationError

DREAM_EPSILON = 1e-3
"""Where Dream's time ends (its `eps`)."""


@dataclass(frozen=True)
class Step:
    """One step of a plan. Slots are the positions of a response, counted from 0.

    Attributes:
        end: slots before this one may be written: the end of the current block.
        reveal: tokens to reveal.
        left: masks that are left before `end` after the step.
    """

    end: int
    reveal: int
    left: int


def even_schedule(tokens: int, steps: int) -> list[int]:
    """`tokens` shared over `steps`: tokens // steps each, the remainder one each to the first
    steps (LLaDA's rule). With more steps than tokens the last steps reveal none.
    """
    each, rest = divmod(tokens, steps)
    return [each + (step < rest) for step in range(steps)]


def remaining_schedule(tokens: int, steps: int) -> list[int]:
    """A share of what is still masked: time goes from 1 to 1e-3 in equal steps, one from t to s
    reveals int(masked · (1 - s/t)), and the last step all that is left (Dream's rule).
    """
    times = [1 + (DREAM_EPSILON - 1) * step / steps for step in range(steps + 1)]
    counts, masked = [], tokens
    for step in range(steps):
        share = 1 - times[step + 1] / times[step]
        counts.append(masked if step == steps - 1 else int(masked * share))
        masked -= counts[-1]
    return counts


def mask_ratio(curve: str, share: float, tokens: int, power: float) -> float:
    """The share of tokens that is masked after a share r of the steps (MaskGIT, arXiv 2202.04200).

    linear 1 - r; cosine cos(πr/2); power 1 - r^K; log -log2(r) / log2(L); exp
    1 - 2^(-log2(L)(1 - r)); clipped to [1e-6, 1]. L is the number of tokens.
    """
    doublings = math.log2(max(tokens, 2))
    ratio = {
        "linear": lambda: 1 - share,
        "cosine": lambda: math.cos(math.pi / 2 * share),
        "power": lambda: 1 - share**power,
        "log": lambda: -math.log2(share) / doublings,
        "exp": lambda: 1 - 2 ** (-doublings * (1 - share)),
    }[curve]()
    return min(max(ratio, 1e-6), 1.0)


def ratio_schedule(tokens: int, steps: int, curve: str, power: float = 2.0) -> list[int]:
    """MaskGIT's rule: floor(tokens · ratio) stay masked after a step, none after the last."""
    # A product that is whole but for rounding counts as whole: 12 tokens in 6 linear steps are 2
    # a step, whatever 12 · (1 - 1/6) is in floating point.
    masked = [tokens] + [
        math.floor(tokens * mask_ratio(curve, step / steps, tokens, power) + 1e-9)
        for step in range(1, steps)
    ]
    return [before - after for before, after in zip(masked, [*masked[1:], 0], strict=True)]


def fixed_length(settings: DecodingSection) -> int:
    """Tokens of every response. Raises ConfigurationError where none are set."""
    if settings.response_length is None:
        raise ConfigurationError("decoding needs a response_length: one fixed number per task")
    return settings.response_length


def block_schedules(settings: DecodingSection, tokens: int) -> list[list[int]]:
    """The schedule of every block of a response, left to right; the last block may be shorter.

    Args:
        settings: block length, steps and schedule.
        tokens: of the response.

    Raises:
        ConfigurationError: steps that cannot be shared by the blocks.
    """
    block = min(settings.block_length or tokens, tokens)
    sizes = [min(block, tokens - start) for start in range(0, tokens, block or 1)]
    if settings.steps is None:
        return [_schedule(size, size, settings) for size in sizes]
    if sizes and settings.steps % len(sizes):
        raise ConfigurationError(
            f"decoding.steps {settings.steps} cannot be shared by {len(sizes)} blocks "
            f"({tokens} tokens, block_length {block}); choose a multiple of {len(sizes)}"
        )
    return [_schedule(size, settings.steps // len(sizes), settings) for size in sizes]


@lru_cache(maxsize=1024)
def plan(settings: DecodingSection, tokens: int) -> Sequence[Step]:
    """All steps of a response that is revealed by a schedule. Raises as `block_schedules`."""
    steps, end = [], 0
    for counts in block_schedules(settings, tokens):
        left = sum(counts)
        end += left
        for reveal in counts:
            left -= reveal
            steps.append(Step(end, reveal, left))
    return tuple(steps)


def _schedule(tokens: int, steps: int, settings: DecodingSection) -> list[int]:
    if settings.schedule == "even":
        return even_schedule(tokens, steps)
    if settings.schedule == "remaining":
        return remaining_schedule(tokens, steps)
    return ratio_schedule(tokens, steps, settings.schedule, settings.schedule_power)
