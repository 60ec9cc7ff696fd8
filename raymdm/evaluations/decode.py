"""Prompts to responses, as a unit of work that travels to the actors of a cluster."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raymdm.config import Config
from raymdm.decoding import Trace, generate, infill
from raymdm.decoding.sampler import Watch
from raymdm.decoding.schedule import fixed_length
from raymdm.evaluations.pool import Record
from raymdm.evaluations.prompts import Prompt
from raymdm.evaluations.subject import Subject, open_subject
from raymdm.models import Backbone
from raymdm.training.engine_run import pick_device

_DIGITS = 4


@dataclass(frozen=True)
class DecodePrompts:
    """Makes the work of a process: called there, it loads the model.

    Attributes:
        source: of the model, an absolute path or a hub id.
        config: with the response length filled in.
        infill: prompts hold masks that are filled in.
        trace: records hold the trace too.
    """

    source: str
    config: Config
    infill: bool = False
    trace: bool = False

    def __call__(self) -> Callable[[list[Prompt]], list[Record]]:
        """The records of prompts: number, id, prompt, response, tokens, steps, trace."""
        subject = open_subject(self.source, self.config)
        model = subject.load(pick_device(self.config))
        return lambda prompts: self.records(subject, model, prompts)

    def records(
        self,
        subject: Subject,
        model: Backbone,
        prompts: list[Prompt],
        watch: Watch | None = None,
    ) -> list[Record]:
        """The same with a model that is there already, which somebody may watch."""
        decoding, mask = self.config.evaluation.decoding, subject.shape.mask_token_id
        length = fixed_length(decoding)
        steps = Steps([p.ids.count(mask) if self.infill else length for p in prompts], watch)
        write: Any = infill if self.infill else generate
        found = write(
            model,
            [prompt.ids for prompt in prompts],
            decoding,
            self.trace,
            numbers=[prompt.number for prompt in prompts],
            batch_size=len(prompts),
            watch=steps,
        )
        written, traces = found if self.trace else (found, None)
        records: list[Record] = []
        for place, prompt in enumerate(prompts):
            tokens = written[place]
            record: Record = {
                "number": prompt.number,
                "id": prompt.id,
                "prompt": prompt.text,
                "response": subject.filled(tokens) if self.infill else subject.text(tokens),
                "tokens": tokens,
                "steps": steps.counts[place],
            }
            if traces is not None:
                record["trace"] = trace_record(traces[place])
            records.append(record)
        return records


class Steps:
    """Counts the steps in which each response changed: whoever else is in the batch, the same."""

    def __init__(self, lengths: Sequence[int], watch: Watch | None = None) -> None:
        self.lengths, self.counts = lengths, [0] * len(lengths)
        self.watch = watch
        self._last: dict[int, Tensor] = {}

    def __call__(self, rows: list[int], states: Tensor) -> None:
        """Called by the sampler after each step."""
        if self.watch is not None:
            self.watch(rows, states)
        for row, whole in zip(rows, states.cpu().clone(), strict=True):
            state = whole[: self.lengths[row]]
            self.counts[row] += row not in self._last or not torch.equal(state, self._last[row])
            self._last[row] = state


def trace_record(trace: Trace) -> dict[str, Any]:
    """A trace as JSON can say it; a confidence is null where nothing was predicted."""
    return {
        "start": trace.start.tolist(),
        "states": trace.states.tolist(),
        "predictions": trace.predictions.tolist(),
        "confidence": [
            [None if value != value else round(value, _DIGITS) for value in step]
            for step in trace.confidence.tolist()
        ],
        "positions": trace.positions.tolist(),
    }
