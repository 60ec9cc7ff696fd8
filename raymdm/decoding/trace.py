"""What happened to one response, step by step."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from raymdm.decoding.canvas import Canvas


@dataclass(frozen=True)
class Trace:
    """S steps of one response of n positions, on the CPU.

    Attributes:
        start: int64[n], what stood there before the first step: masks.
        states: int64[S, n], right after each step; the last has no masks.
        predictions: int64[S, n], the model's whole text at each step: its token where the step's
            input was masked, else the token that stood there. With a `dual` cache a step computes
            the current block only; beyond it the tokens of the block's first step stand.
        confidence: float32[S, n], the probability of the predicted tokens under the model's own
            distribution, whatever the positions were ranked by; NaN where nothing was predicted.
        positions: int64[n], columns of the row, counted from its first token.
    """

    start: Tensor
    states: Tensor
    predictions: Tensor
    confidence: Tensor
    positions: Tensor

    @property
    def inputs(self) -> Tensor:
        """What the model read at each step, int64[S, n]."""
        return torch.cat([self.start[None], self.states])[:-1]


@dataclass
class _Steps:
    start: Tensor
    positions: Tensor
    states: list[Tensor] = field(default_factory=list)
    predictions: list[Tensor] = field(default_factory=list)
    confidence: list[Tensor] = field(default_factory=list)


class Recorder:
    """Collects the traces of rows, whichever of them share a batch at a step."""

    def __init__(self) -> None:
        self._rows: dict[int, _Steps] = {}

    def begin(self, canvas: Canvas) -> None:
        """Rows before their first step."""
        responses, columns = canvas.responses.cpu(), canvas.columns.cpu()
        for place, row in enumerate(canvas.rows):
            length = canvas.lengths[place]
            self._rows[row] = _Steps(
                responses[place, :length], columns[place, :length] - canvas.padding[place]
            )

    def step(
        self, canvas: Canvas, places: Sequence[int], predictions: Tensor, confidence: Tensor
    ) -> None:
        """One step of some of a canvas's rows, its contents being those right after it.

        Args:
            canvas: B rows.
            places: which of the B rows took part.
            predictions: int64[B, N]; a mask where none was made.
            confidence: [B, N], NaN where no prediction was made.
        """
        states, predictions, confidence = (
            x.cpu() for x in (canvas.responses, predictions, confidence.float())
        )
        for place in places:
            steps, length = self._rows[canvas.rows[place]], canvas.lengths[place]
            predicted = predictions[place, :length]
            if steps.predictions:
                computed = predicted != canvas.shape.mask_token_id
                predicted = torch.where(computed, predicted, steps.predictions[-1])
            steps.states.append(states[place, :length])
            steps.predictions.append(predicted)
            steps.confidence.append(confidence[place, :length])

    def rest(self, row: int, steps: int) -> None:
        """Steps in which a row that is finished changes no more."""
        recorded = self._rows[row]
        final = recorded.states[-1]
        recorded.states += [final] * steps
        recorded.predictions += [final] * steps
        recorded.confidence += [torch.full(final.shape, torch.nan)] * steps

    def trace(self, row: int) -> Trace:
        """All that was recorded of a row; of one that had nothing to write, no steps."""
        if row not in self._rows:
            none, no_steps = torch.zeros(0, dtype=torch.long), torch.zeros(0, 0, dtype=torch.long)
            return Trace(none, no_steps, no_steps, no_steps.float(), none)
        steps = self._rows[row]
        return Trace(
            start=steps.start,
            states=torch.stack(steps.states),
            predictions=torch.stack(steps.predictions),
            confidence=torch.stack(steps.confidence),
            positions=steps.positions,
        )
