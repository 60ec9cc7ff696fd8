"""What happened to one response, step by step."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

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
        log_probability: float32[S, n], of the predicted tokens under the distribution that they
            were drawn from: guided, at the temperature, cut by top-p and top-k. NaN where nothing
            was predicted; None where it was not asked for.
    """

    start: Tensor
    states: Tensor
    predictions: Tensor
    confidence: Tensor
    positions: Tensor
    log_probability: Tensor | None = None

    @property
    def inputs(self) -> Tensor:
        """What the model read at each step, int64[S, n]."""
        return torch.cat([self.start[None], self.states])[:-1]

    def only(self, step: int) -> "Trace":
        """The step from 0 with this number alone, which starts from what it read."""
        part, drawn = slice(step, step + 1), self.log_probability
        return replace(
            self,
            start=self.states[step - 1] if step else self.start,
            states=self.states[part],
            predictions=self.predictions[part],
            confidence=self.confidence[part],
            log_probability=None if drawn is None else drawn[part],
        )

    def rested(self, steps: int) -> "Trace":
        """The same with steps after its last, up to `steps` in all, in which nothing happens."""
        more = steps - len(self.states)
        if more <= 0:
            return self
        final = self.states[-1:].expand(more, -1)
        nothing = torch.full(final.shape, torch.nan)
        drawn = self.log_probability
        return replace(
            self,
            states=torch.cat([self.states, final]),
            predictions=torch.cat([self.predictions, final]),
            confidence=torch.cat([self.confidence, nothing]),
            log_probability=None if drawn is None else torch.cat([drawn, nothing]),
        )


@dataclass
class _Steps:
    start: Tensor
    positions: Tensor
    states: list[Tensor] = field(default_factory=list)
    predictions: list[Tensor] = field(default_factory=list)
    confidence: list[Tensor] = field(default_factory=list)
    log_probability: list[Tensor] = field(default_factory=list)


class Recorder:
    """Collects the traces of rows, whichever of them share a batch at a step.

    Everything stays where it was computed until a trace is asked for: a step waits for no device.

    Args:
        log_probabilities: whether the traces have them.
    """

    def __init__(self, *, log_probabilities: bool = False) -> None:
        self.log_probabilities = log_probabilities
        self._rows: dict[int, _Steps] = {}

    def begin(self, canvas: Canvas) -> None:
        """Rows before their first step."""
        responses, columns = canvas.responses, canvas.columns
        for place, row in enumerate(canvas.rows):
            length = canvas.lengths[place]
            self._rows[row] = _Steps(
                responses[place, :length], columns[place, :length] - canvas.padding[place]
            )

    def step(
        self,
        canvas: Canvas,
        places: Sequence[int],
        predictions: Tensor,
        confidence: Tensor,
        log_probability: Tensor | None = None,
    ) -> None:
        """One step of some of a canvas's rows, its contents being those right after it.

        Args:
            canvas: B rows.
            places: which of the B rows took part.
            predictions: int64[B, N]; a mask where none was made.
            confidence: [B, N], NaN where no prediction was made.
            log_probability: [B, N], as confidence; None where traces have none.
        """
        states, confidence = canvas.responses, confidence.float()
        if log_probability is not None:
            log_probability = log_probability.float()
        for place in places:
            steps, length = self._rows[canvas.rows[place]], canvas.lengths[place]
            predicted = predictions[place, :length]
            if steps.predictions:
                computed = predicted != canvas.shape.mask_token_id
                predicted = torch.where(computed, predicted, steps.predictions[-1])
            steps.states.append(states[place, :length])
            steps.predictions.append(predicted)
            steps.confidence.append(confidence[place, :length])
            if log_probability is not None:
                steps.log_probability.append(log_probability[place, :length])

    def rest(self, row: int, steps: int) -> None:
        """Steps in which a row that is finished changes no more."""
        recorded = self._rows[row]
        final = recorded.states[-1]
        recorded.states += [final] * steps
        recorded.predictions += [final] * steps
        nothing = [torch.full_like(recorded.confidence[-1], torch.nan)] * steps
        recorded.confidence += nothing
        if self.log_probabilities:
            recorded.log_probability += nothing

    def trace(self, row: int) -> Trace:
        """All that was recorded of a row; of one that had nothing to write, no steps."""
        if row not in self._rows:
            none, no_steps = torch.zeros(0, dtype=torch.long), torch.zeros(0, 0, dtype=torch.long)
            drawn = no_steps.float() if self.log_probabilities else None
            return Trace(none, no_steps, no_steps, no_steps.float(), none, drawn)
        steps = self._rows[row]
        drawn = torch.stack(steps.log_probability).cpu() if self.log_probabilities else None
        return Trace(
            start=steps.start.cpu(),
            states=torch.stack(steps.states).cpu(),
            predictions=torch.stack(steps.predictions).cpu(),
            confidence=torch.stack(steps.confidence).cpu(),
            positions=steps.positions.cpu(),
            log_probability=drawn,
        )
