"""Left-to-right decoding of a causal model: a token a step, each row until its EOS.

Keys and values of what stands are kept, which is exact: a column is computed once, when the token
before it is known.
"""

from collections.abc import Sequence

import torch

from raymdm.config.decoding import DecodingSection
from raymdm.decoding.canvas import Canvas
from raymdm.decoding.noise import uniforms
from raymdm.decoding.prediction import Prediction, predict
from raymdm.decoding.sampler import Watch
from raymdm.decoding.schedule import fixed_length
from raymdm.decoding.trace import Recorder
from raymdm.errors import ConfigurationError
from raymdm.models import Backbone, KeyValueCache

_OF_MASKED_MODELS = (
    "steps",
    "block_length",
    "schedule",
    "schedule_power",
    "confidence",
    "threshold",
    "remasking",
    "guidance",
    "cache",
)


class LeftToRight:
    """Writes the responses of canvases.

    Args:
        model: a causal backbone.
        settings: temperature, sampling, top_p and top_k; eos (`never`) and stop_at_eos.
        numbers: the address of every row's noise.
        rollouts: which of the responses to its prompt every row is; part of the address.
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
        recorder: Recorder | None,
        watch: Watch | None,
    ) -> None:
        self.model, self.settings, self.shape = model, settings, model.shape
        self.numbers, self.rollouts = numbers, rollouts
        self.recorder, self.watch = recorder, watch

    @torch.no_grad()
    def __call__(self, canvas: Canvas) -> dict[int, list[int]]:
        """The responses of all rows, by row. All have the same length, and stand at the end of
        their rows: every step writes one column.
        """
        length, width = canvas.lengths[0], canvas.ids.shape[1]
        weight = next(self.model.parameters())
        cache = KeyValueCache(self.shape, len(canvas.rows), width, weight)
        done: dict[int, list[int]] = {}
        if self.recorder:
            self.recorder.begin(canvas)
        for slot in range(length):
            responses = canvas.responses
            found = self._predicted(canvas, cache, slot)
            responses[:, slot] = found.tokens
            if self.settings.stop_at_eos:
                ended = found.tokens == self.shape.eos_token_id
                responses[:, slot + 1 :].masked_fill_(ended[:, None], self.shape.eos_token_id)
            canvas.write(responses)
            canvas.steps = [step + 1 for step in canvas.steps]
            if self.recorder:
                confidence = torch.full(responses.shape, torch.nan, device=responses.device)
                confidence[:, slot] = found.probability
                self.recorder.step(canvas, range(len(canvas.rows)), responses, confidence)
            if self.watch:
                self.watch(list(canvas.rows), responses)
            if slot + 1 == length:
                break
            if self.settings.stop_at_eos:
                done |= self._leave(canvas, cache, ended.tolist())
            if not canvas.rows:
                return done
        return done | dict(zip(canvas.rows, canvas.responses.tolist(), strict=True))

    def _predicted(self, canvas: Canvas, cache: KeyValueCache, slot: int) -> Prediction:
        """The tokens of one slot, for which the columns that have not been computed yet are."""
        columns = slice(cache.written, canvas.ids.shape[1] - canvas.lengths[0] + slot + 1)
        select = torch.zeros(
            len(canvas.rows),
            columns.stop - columns.start,
            dtype=torch.bool,
            device=canvas.ids.device,
        )
        select[:, -1] = True
        logits = self.model(
            canvas.ids, canvas.attention_mask, select=select, cache=cache, columns=columns
        )
        noise = None
        if self.settings.temperature > 0:
            drawn = uniforms(
                self.settings.seed,
                [self.numbers[row] for row in canvas.rows],
                [self.rollouts[row] for row in canvas.rows],
                canvas.steps,
                canvas.lengths,
            )
            noise = torch.from_numpy(drawn[:, :, slot]).to(logits.device)
        return predict(logits, self.settings, self.shape, noise)

    def _leave(
        self, canvas: Canvas, cache: KeyValueCache, ended: Sequence[bool]
    ) -> dict[int, list[int]]:
        """Take the rows that have ended from the batch, with padding that no other needs."""
        if not any(ended):
            return {}
        responses = canvas.responses.tolist()
        going = [place for place, end in enumerate(ended) if not end]
        done = {
            row: response
            for row, response, end in zip(canvas.rows, responses, ended, strict=True)
            if end
        }
        canvas.keep(going)
        if going:
            spare = min(canvas.padding)
            canvas.trim()
            cache.keep(torch.tensor(going, device=canvas.ids.device), slice(spare, None))
        return done


def check_left_to_right(settings: DecodingSection) -> None:
    """Raises ConfigurationError for a length that is missing or a setting that means nothing."""
    fixed_length(settings)
    for name in _OF_MASKED_MODELS:
        _refuse(settings, name, DecodingSection.model_fields[name].default)
    if settings.eos == "last":
        _refuse(settings, "eos", "free")


def _refuse(settings: DecodingSection, name: str, usual: object) -> None:
    """Raises ConfigurationError where a setting is not the usual one."""
    if getattr(settings, name) != usual:
        said = "null" if usual is None else usual
        raise ConfigurationError(
            f"evaluation.decoding.{name} means nothing for a causal model, which writes one token "
            f"a step from left to right; set evaluation.decoding.{name} to {said}"
        )
