"""Denoising: masked rows are written step by step.

At each step the masked slots of a row's current block are predicted. Either the most confident
predictions are revealed, as many as the plan says or as are confident enough, and stay (LLaDA,
arXiv 2502.09992, "low-confidence remasking"); or all are revealed and the least confident are
masked again (RCR, arXiv 2508.13148). Rows leave the batch when they have no masks left.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from raymdm.config.decoding import DecodingSection
from raymdm.decoding.cached import CachedForward
from raymdm.decoding.canvas import Canvas
from raymdm.decoding.choosing import confident_enough, first_places, masked_again, updated
from raymdm.decoding.confidence import RANDOM
from raymdm.decoding.forward import Forward, FullForward
from raymdm.decoding.noise import uniforms
from raymdm.decoding.prediction import predict
from raymdm.decoding.schedule import Step, plan
from raymdm.decoding.trace import Recorder
from raymdm.models import Backbone

Watch = Callable[[list[int], Tensor], None]
"""Called after every step with the rows that are being decoded and their responses, [B, N]."""


class Denoiser:
    """Writes the slots of canvases.

    Args:
        model: a masked backbone.
        settings: of the sampler.
        numbers: the address of every row's noise.
        rollouts: which of the responses to its prompt every row is; part of the address.
        text: the slots are a text in order, which its first EOS ends; else they lie anywhere.
        recorder: where traces are kept; None for none.
        watch: called after every step.
    """

    def __init__(
        self,
        model: Backbone,
        settings: DecodingSection,
        numbers: Sequence[int],
        rollouts: Sequence[int],
        *,
        text: bool,
        recorder: Recorder | None,
        watch: Watch | None,
    ) -> None:
        self.model, self.settings, self.shape = model, settings, model.shape
        self.numbers, self.rollouts = numbers, rollouts
        self.recorder, self.watch = recorder, watch
        self.remasks = settings.remasking != "none"
        # What is masked again may stand before an EOS: under RCR no text is final before the end.
        self.stops = text and settings.stop_at_eos and not self.remasks
        self.noisy = settings.temperature > 0 or settings.confidence in RANDOM

    @torch.no_grad()
    def __call__(self, canvas: Canvas) -> dict[int, list[int]]:
        """The contents of all slots of every row, by row."""
        cached = self.settings.cache != "none"
        forward: Forward = (CachedForward if cached else FullForward)(self.model, self.settings)
        done: dict[int, list[int]] = {}
        fronts = [0] * len(canvas.rows)
        if self.recorder:
            self.recorder.begin(canvas)
        while canvas.rows:
            fronts = self._step(canvas, forward, fronts)
            if self.watch:
                self.watch(list(canvas.rows), canvas.responses)
            going = [front < end for front, end in zip(fronts, canvas.lengths, strict=True)]
            if not all(going):
                done |= self._finished(canvas, [place for place, on in enumerate(going) if not on])
                canvas.keep([place for place, on in enumerate(going) if on])
                fronts = [front for front, on in zip(fronts, going, strict=True) if on]
        return done

    def _step(self, canvas: Canvas, forward: Forward, fronts: list[int]) -> list[int]:
        """One step of the rows that take part; the first masked slot of all rows after it.

        Nothing here depends on values on the device until the end of the step, where the fronts are
        read: that is the one place to wait for it.
        """
        ends, counts, left = self._pace(canvas, fronts)
        working = forward.begin_step(canvas, ends)
        device = canvas.ids.device
        responses = canvas.responses
        slots = torch.arange(responses.shape[1], device=device)
        inside = slots < torch.tensor(ends, device=device)[:, None]
        masked = canvas.masked(responses)
        if len(working) < len(ends):
            part = torch.zeros(len(ends), 1, dtype=torch.bool)
            part[working] = True
            inside, masked = inside & part.to(device), masked & part.to(device)
        candidates = masked & inside

        computed, logits = forward(canvas, working, masked if self.recorder else candidates)
        found = predict(
            logits,
            self.settings,
            self.shape,
            self._noise(canvas, computed),
            log_probabilities=self.recorder is not None and self.recorder.log_probabilities,
        )
        predicted = responses.masked_scatter(computed, found.tokens)
        confidence = spread(found.confidence, computed, -torch.inf)

        if self.remasks:
            responses = self._remasked(canvas, candidates, inside, predicted, confidence, left)
        else:
            last = predicted == self.shape.eos_token_id if self.settings.eos == "last" else None
            confidence = confidence.masked_fill(~candidates, -torch.inf)
            if self.settings.threshold is None:
                reveal = torch.tensor(counts, device=device)
            else:
                reveal = confident_enough(confidence, candidates, self.settings.threshold, last)
            responses = predicted.where(first_places(confidence, reveal, last), responses)
        if self.stops:
            responses = self._filled_up(canvas, responses)
        canvas.write(responses)
        for place in working:
            canvas.steps[place] += 1
        if self.recorder:
            likely = spread(found.probability, computed, torch.nan)
            drawn = found.log_probability
            drawn = None if drawn is None else spread(drawn, computed, torch.nan)
            self.recorder.step(canvas, working, predicted, likely, drawn)
        return first_slot(canvas.masked(responses)).tolist()

    def _pace(
        self, canvas: Canvas, fronts: Sequence[int]
    ) -> tuple[list[int], list[int], list[int]]:
        """For every row the end of its block, how many to reveal, and how many stay masked there.

        With a threshold only the first means anything.
        """
        if self.settings.threshold is not None:
            ends = []
            for front, length in zip(fronts, canvas.lengths, strict=True):
                block = self.settings.block_length or length
                ends.append(min((front // block + 1) * block, length))
            return ends, [], []
        steps = []
        for place, length in enumerate(canvas.lengths):
            of_row = plan(self.settings, length)
            while not self.recorder and self._changes_nothing(of_row[canvas.steps[place]]):
                canvas.steps[place] += 1
            steps.append(of_row[canvas.steps[place]])
        return (
            [step.end for step in steps],
            [step.reveal for step in steps],
            [step.left for step in steps],
        )

    def _changes_nothing(self, step: Step) -> bool:
        return step.reveal == 0 and not (self.remasks and step.left)

    def _noise(self, canvas: Canvas, computed: Tensor) -> Tensor | None:
        """The uniform numbers of the computed slots, float64[2, M]; None where none are needed."""
        if not self.noisy:
            return None
        noise = uniforms(
            self.settings.seed,
            [self.numbers[row] for row in canvas.rows],
            [self.rollouts[row] for row in canvas.rows],
            canvas.steps,
            canvas.lengths,
            shared_order=self.settings.confidence == "shared_order",
        )
        return torch.from_numpy(noise).to(computed.device)[:, computed[:, : noise.shape[2]]]

    def _remasked(
        self,
        canvas: Canvas,
        candidates: Tensor,
        inside: Tensor,
        predicted: Tensor,
        confidence: Tensor,
        left: Sequence[int],
    ) -> Tensor:
        """RCR: everything masked up to the block's end is revealed, and of all that is revealed
        there the least confident are masked again. The contents after it, int64[B, N].
        """
        assert self.settings.remasking != "none"
        responses = predicted.where(candidates, canvas.responses)
        canvas.running = updated(canvas.running, confidence, candidates, self.settings.remasking)
        last = responses == self.shape.eos_token_id if self.settings.eos == "last" else None
        counts = torch.tensor(left, device=responses.device)
        again = masked_again(canvas.running, inside & canvas.present, counts, last)
        return responses.masked_fill(again, self.shape.mask_token_id)

    def _filled_up(self, canvas: Canvas, responses: Tensor) -> Tensor:
        """EOS in every slot after a row's first one, where all before it are revealed."""
        eos = self.shape.eos_token_id
        first = first_slot((responses == eos) & canvas.present)
        stands = first < first_slot(canvas.masked(responses))
        slots = torch.arange(responses.shape[1], device=responses.device)
        return responses.masked_fill(stands[:, None] & (slots > first[:, None]), eos)

    def _finished(self, canvas: Canvas, places: Sequence[int]) -> dict[int, list[int]]:
        """The responses of these rows, which have no masks left."""
        responses = canvas.responses.tolist()
        for place in places:
            taken, length = canvas.steps[place], canvas.lengths[place]
            if self.recorder and self.settings.threshold is None:
                of_row = plan(self.settings, length)
                if of_row[taken - 1].end == length and not of_row[taken - 1].left:
                    self.recorder.rest(canvas.rows[place], len(of_row) - taken)
        return {canvas.rows[place]: responses[place][: canvas.lengths[place]] for place in places}


def first_slot(slots: Tensor) -> Tensor:
    """The first true slot of bool[B, N], int64[B]; N where there is none."""
    order = torch.arange(slots.shape[1], device=slots.device)
    return torch.where(slots, order, slots.shape[1]).amin(-1)


def spread(values: Tensor, slots: Tensor, other: float) -> Tensor:
    """Values[M] of the M true slots of bool[B, N], in row-major order, and `other`: [B, N]."""
    filled = torch.full(slots.shape, other, dtype=values.dtype, device=values.device)
    return filled.masked_scatter(slots, values)
