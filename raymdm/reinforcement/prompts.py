"""Which prompts each round of rollouts is for, and the block lengths of their groups.

`PromptStream` goes through all prompts, epoch by epoch. `IncrementalPrompts` (MDPO's incremental
training, arXiv 2508.13148) asks before every epoch for a new list: the prompts that the present
policy over-denoises.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from raymdm.data.order import Order
from raymdm.errors import ConfigurationError
from raymdm.randomness import generator, permutation


@dataclass(frozen=True)
class Round:
    """The prompts of one round.

    Attributes:
        numbers: of P training rows, no two of them equal.
        epoch: which pass over the prompts it belongs to, from 0.
    """

    numbers: list[int]
    epoch: int


class Prompts(Protocol):
    """Which prompts the rounds are for, rounds being counted from 0."""

    def due(self, step: int) -> bool:
        """Whether a round needs a new list first: then call `renew`."""

    def renew(self, numbers: Sequence[int]) -> str | None:
        """Begin the next epoch with its list; a remark for the log where the list is too short."""

    def round(self, step: int) -> Round:
        """The prompts of a round for which no list is due."""

    def state(self) -> dict[str, Any]:
        """What the rounds to come depend on beside the settings, as JSON can say it."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""


class PromptStream:
    """A fresh permutation of the prompts in every epoch: a pure function of (seed, round).

    Args:
        numbers: of the training rows.
        seed: of the order.
        prompts_per_step: P, prompts of a round.

    Raises:
        ConfigurationError: fewer prompts than a round needs.
    """

    def __init__(self, numbers: Sequence[int], seed: int, prompts_per_step: int) -> None:
        _check_enough(numbers, prompts_per_step)
        self.numbers = list(numbers)
        self.order = Order(seed, rows=len(self.numbers), batch_size=prompts_per_step)

    def due(self, step: int) -> bool:
        """Never: the prompts are always the same."""
        return False

    def renew(self, numbers: Sequence[int]) -> str | None:
        """Raises ValueError: no list is ever due."""
        raise ValueError("these prompts are not renewed")

    def round(self, step: int) -> Round:
        """The prompts of a round."""
        places = self.order.samples(step).tolist()
        return Round([self.numbers[place] for place in places], self.order.epoch(step))

    def state(self) -> dict[str, Any]:
        """Nothing: the settings say all."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to do."""


class IncrementalPrompts:
    """Every epoch goes through a list of its own, in max(1, length // P) rounds.

    A list that is shorter than a round is filled up with other prompts; of an empty one (nothing is
    over-denoised) the epoch takes all prompts. Order and filling are addressed by (seed, epoch).

    Args:
        numbers: of all training rows.
        seed: of the order.
        prompts_per_step: P, prompts of a round.

    Raises:
        ConfigurationError: fewer prompts than a round needs.
    """

    def __init__(self, numbers: Sequence[int], seed: int, prompts_per_step: int) -> None:
        _check_enough(numbers, prompts_per_step)
        self.numbers, self.seed, self.prompts_per_step = list(numbers), seed, prompts_per_step
        self.epoch = -1  # before the first
        self.start = self.end = 0
        self.current: list[int] = []

    def due(self, step: int) -> bool:
        """Whether the round is beyond the epoch whose list is known."""
        return step >= self.end

    def renew(self, numbers: Sequence[int]) -> str | None:
        """Begin the next epoch with its list; a remark for the log where the list is too short."""
        return self._begin(self.epoch + 1, self.end, list(numbers))

    def round(self, step: int) -> Round:
        """The prompts of a round. Raises ValueError outside the epoch whose list is known."""
        if not self.start <= step < self.end:
            raise ValueError(f"round {step} is not in epoch {self.epoch}: renew the list first")
        places = permutation(self.seed, self.epoch, len(self._used))
        first = (step - self.start) * self.prompts_per_step
        chosen = places[first : first + self.prompts_per_step].tolist()
        return Round([self._used[place] for place in chosen], self.epoch)

    def state(self) -> dict[str, Any]:
        """The epoch, its first round and its list."""
        return {"epoch": self.epoch, "start": self.start, "numbers": self.current}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state: in the middle of an epoch with the same rounds."""
        if state["epoch"] >= 0:
            self._begin(state["epoch"], state["start"], list(state["numbers"]))

    def _begin(self, epoch: int, start: int, current: list[int]) -> str | None:
        self.epoch, self.start, self.current = epoch, start, current
        self._used, remark = current, None
        short = self.prompts_per_step - len(current)
        if not current:
            self._used = self.numbers
            remark = f"no prompt is over-denoised: epoch {epoch} takes all {len(self.numbers)}"
        elif short > 0:
            left = sorted(set(self.numbers) - set(current))
            drawn = generator(self.seed, "fill", epoch).permutation(left)[:short].tolist()
            self._used = current + drawn
            remark = (
                f"{len(current)} prompts are over-denoised: epoch {epoch} takes {short} others, "
                f"for a round of {self.prompts_per_step}"
            )
        self.end = start + len(self._used) // self.prompts_per_step
        return remark


def block_lengths(
    numbers: Sequence[int], epoch: int, choices: Sequence[int], seed: int
) -> list[int]:
    """The block length of every group, one for all of its rollouts (MDPO's `mixture_data`).

    Drawn uniformly at the address (seed, epoch, number): whichever worker asks for which groups.

    Args:
        numbers: of the groups' prompts.
        epoch: of their round.
        choices: block lengths to draw from.
        seed: of the draws.
    """
    return [
        choices[int(generator(seed, "blocks", epoch, number).integers(len(choices)))]
        for number in numbers
    ]


def _check_enough(numbers: Sequence[int], prompts_per_step: int) -> None:
    if len(numbers) < prompts_per_step:
        raise ConfigurationError(
            f"policy.prompts_per_step {prompts_per_step} is more than the {len(numbers)} prompts "
            "that there are; set a smaller one, or prepare or list more prompts"
        )
