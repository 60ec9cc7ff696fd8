"""Rollouts of a worker: what is asked for, and how a worker makes them with the model it trains.

`ActorRollouts` (actors.py) gives the same from Ray actors.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from raymdm.config.decoding import DecodingSection
from raymdm.decoding import Trace, generate
from raymdm.models import Backbone


@dataclass(frozen=True)
class Ask:
    """One response that is wanted, with its trace.

    Attributes:
        prompt: token ids.
        number: of the prompt, as its noise is addressed.
        rollout: which of its responses, likewise.
        settings: how it is decoded.
    """

    prompt: list[int]
    number: int
    rollout: int
    settings: DecodingSection


class Rollouts(Protocol):
    """Where rollouts come from; every rank must call each method together.

    Attributes:
        restarts: processes that were lost and started again so far.
    """

    restarts: int

    def begin(self, key: str, asks: Sequence[Ask], engine: Any, version: int) -> None:
        """Order what this rank wants, to be made with the engine's weights as they are now.

        Args:
            key: what they are collected by.
            asks: this rank's.
            engine: that holds the weights.
            version: of the weights: another number where they have changed.
        """

    def collect(self, key: str) -> list[Trace]:
        """The traces of what this rank asked for, in its order."""

    def close(self) -> None:
        """Let go of what makes them."""


def roll(model: Backbone, asks: Sequence[Ask], batch_size: int) -> list[Trace]:
    """The traces of asks, in their order; those above temperature 0 with log-probabilities.

    Args:
        model: in its mode for evaluation.
        asks: with any settings; those of equal ones share batches.
        batch_size: of responses decoded together, at the most.
    """
    made: dict[int, Trace] = {}
    for settings in dict.fromkeys(ask.settings for ask in asks):
        places = [place for place, ask in enumerate(asks) if ask.settings == settings]
        _, traces = generate(
            model,
            [asks[place].prompt for place in places],
            settings,
            True,
            numbers=[asks[place].number for place in places],
            rollout=[asks[place].rollout for place in places],
            batch_size=batch_size,
            log_probabilities=settings.temperature > 0,
        )
        made.update(zip(places, traces, strict=True))
    # As traces travel and lie on disk: weights must not depend on who rolled out.
    return [_rounded(made[place]) for place in range(len(asks))]


def _rounded(trace: Trace) -> Trace:
    return replace(trace, confidence=trace.confidence.half().float())


class OwnRollouts:
    """Every worker makes its own, at the moment they are ordered.

    Args:
        batch_size: of responses decoded together, at the most.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size, self.restarts = batch_size, 0
        self._made: dict[str, list[Trace]] = {}

    def begin(self, key: str, asks: Sequence[Ask], engine: Any, version: int) -> None:
        """See `Rollouts`."""
        engine.eval()
        self._made[key] = roll(engine.module, asks, self.batch_size)
        engine.train()

    def collect(self, key: str) -> list[Trace]:
        """See `Rollouts`."""
        return self._made.pop(key)

    def close(self) -> None:
        """Nothing is held."""
