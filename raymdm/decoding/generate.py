"""The doors: responses to prompts, and texts with masks filled in."""

from collections.abc import Callable, Sequence
from typing import Literal, overload

import torch

from raymdm.config.decoding import DecodingSection
from raymdm.decoding import batching
from raymdm.decoding.canvas import Canvas
from raymdm.decoding.left_to_right import LeftToRight, check_left_to_right
from raymdm.decoding.sampler import Denoiser, Watch
from raymdm.decoding.schedule import block_schedules, fixed_length
from raymdm.decoding.trace import Recorder, Trace
from raymdm.errors import ConfigurationError
from raymdm.models import Backbone


@overload
def generate(
    model: Backbone,
    prompts: Sequence[Sequence[int]],
    settings: DecodingSection,
    trace: Literal[False] = False,
    *,
    numbers: Sequence[int] | None = None,
    rollout: int | Sequence[int] = 0,
    batch_size: int = 64,
    watch: Watch | None = None,
) -> list[list[int]]: ...
@overload
def generate(
    model: Backbone,
    prompts: Sequence[Sequence[int]],
    settings: DecodingSection,
    trace: Literal[True],
    *,
    numbers: Sequence[int] | None = None,
    rollout: int | Sequence[int] = 0,
    batch_size: int = 64,
    watch: Watch | None = None,
    log_probabilities: bool = False,
) -> tuple[list[list[int]], list[Trace]]: ...


@torch.no_grad()
def generate(
    model: Backbone,
    prompts: Sequence[Sequence[int]],
    settings: DecodingSection,
    trace: bool = False,
    *,
    numbers: Sequence[int] | None = None,
    rollout: int | Sequence[int] = 0,
    batch_size: int = 64,
    watch: Watch | None = None,
    log_probabilities: bool = False,
) -> list[list[int]] | tuple[list[list[int]], list[Trace]]:
    """Responses to prompts of any lengths; which of them share a batch changes nothing.

    Args:
        model: the backbone; its shape says whether it is causal and names the special tokens.
        prompts: rows of token ids.
        settings: of the sampler.
        trace: return what happened at every step too; the responses are the same.
        numbers: the address of every prompt's noise, from 0; its place by default.
        rollout: which of several responses to the same prompt, one for all prompts or one for each;
            part of the noise's address.
        batch_size: rows that are decoded together, at the most.
        watch: called after every step of a batch with the indices of the prompts that are being
            decoded and their responses so far, int64[rows, response_length], masks included.
        log_probabilities: let the traces say with what log-probability each token was drawn.

    Returns:
        A row of exactly `response_length` token ids for every prompt (cut them at the first EOS
        yourself), never the mask token; with `trace`, and one trace for every prompt. In that of a
        causal model predictions are the states, and only what was written has a confidence.

    Raises:
        ConfigurationError: settings that this kind of model cannot be decoded with, or under which
            nothing is drawn whose log-probability is asked for.
    """
    check_decoding(settings, causal=model.shape.causal)
    if log_probabilities and (model.shape.causal or not settings.temperature):
        raise ConfigurationError(
            "log-probabilities are those of tokens that a masked model draws: give a masked one "
            "and a decoding.temperature above 0"
        )
    length = fixed_length(settings)
    masks = [model.shape.mask_token_id] * length
    filled, traces = _write(
        model,
        [[*prompt, *masks] for prompt in prompts],
        [range(len(prompt), len(prompt) + length) for prompt in prompts],
        settings,
        Recorder(log_probabilities=log_probabilities) if trace else None,
        numbers,
        rollout,
        batch_size,
        watch,
        text=True,
    )
    return (filled, traces) if trace else filled


@overload
def infill(
    model: Backbone,
    rows: Sequence[Sequence[int]],
    settings: DecodingSection,
    trace: Literal[False] = False,
    *,
    numbers: Sequence[int] | None = None,
    rollout: int | Sequence[int] = 0,
    batch_size: int = 64,
    watch: Watch | None = None,
) -> list[list[int]]: ...
@overload
def infill(
    model: Backbone,
    rows: Sequence[Sequence[int]],
    settings: DecodingSection,
    trace: Literal[True],
    *,
    numbers: Sequence[int] | None = None,
    rollout: int | Sequence[int] = 0,
    batch_size: int = 64,
    watch: Watch | None = None,
) -> tuple[list[list[int]], list[Trace]]: ...


@torch.no_grad()
def infill(
    model: Backbone,
    rows: Sequence[Sequence[int]],
    settings: DecodingSection,
    trace: bool = False,
    *,
    numbers: Sequence[int] | None = None,
    rollout: int | Sequence[int] = 0,
    batch_size: int = 64,
    watch: Watch | None = None,
) -> list[list[int]] | tuple[list[list[int]], list[Trace]]:
    """Rows with all their masks written; nothing else changes.

    Blocks divide the masked positions of a row in order, wherever they lie. An EOS ends nothing
    here, and `response_length` has no say. With guidance all given tokens count as the prompt.

    Args:
        model: a masked backbone.
        rows: token ids with masks anywhere, or nowhere.
        settings: of the sampler.
        trace: return what happened at every step too, of the masked positions.
        numbers: as `generate`.
        rollout: as `generate`.
        batch_size: as `generate`.
        watch: as `generate`, with the masked positions' contents; those of rows that have fewer
            than others end in tokens without a meaning.

    Raises:
        ConfigurationError: a causal model, a cache, or steps that a row's blocks cannot share.
    """
    if model.shape.causal:
        raise ConfigurationError(
            "a causal model writes from left to right and cannot infill; give a masked one"
        )
    if settings.cache != "none":
        raise ConfigurationError(
            f"evaluation.decoding.cache {settings.cache} keeps what lies around a block, and masks "
            "that lie anywhere have no such block; infill with cache: none"
        )
    mask = model.shape.mask_token_id
    slots = [[at for at, token in enumerate(row) if token == mask] for row in rows]
    if settings.threshold is None:
        for filling in slots:
            block_schedules(settings, len(filling))
    filled, traces = _write(
        model,
        rows,
        slots,
        settings,
        Recorder() if trace else None,
        numbers,
        rollout,
        batch_size,
        watch,
        text=False,
    )
    whole = [list(row) for row in rows]
    for row, filling, tokens in zip(whole, slots, filled, strict=True):
        for at, token in zip(filling, tokens, strict=True):
            row[at] = token
    return (whole, traces) if trace else whole


def check_decoding(settings: DecodingSection, *, causal: bool) -> None:
    """Raises ConfigurationError where models of this kind cannot be decoded with these settings."""
    if causal:
        check_left_to_right(settings)
        return
    length = fixed_length(settings)
    if settings.threshold is None:
        block_schedules(settings, length)


def _write(
    model: Backbone,
    rows: Sequence[Sequence[int]],
    slots: Sequence[Sequence[int]],
    settings: DecodingSection,
    recorder: Recorder | None,
    numbers: Sequence[int] | None,
    rollout: int | Sequence[int],
    batch_size: int,
    watch: Watch | None,
    *,
    text: bool,
) -> tuple[list[list[int]], list[Trace]]:
    """What is written into the slots of every row; and the traces, if wanted."""
    numbers = range(len(rows)) if numbers is None else numbers
    rollouts = [rollout] * len(rows) if isinstance(rollout, int) else rollout
    write: Callable[[Canvas], dict[int, list[int]]]
    if model.shape.causal:
        write = LeftToRight(model, settings, numbers, rollouts, recorder=recorder, watch=watch)
    else:
        write = Denoiser(
            model, settings, numbers, rollouts, text=text, recorder=recorder, watch=watch
        )
    device = next(model.parameters()).device
    filled: dict[int, list[int]] = {}
    open_rows = [row for row, filling in enumerate(slots) if filling]
    whole = settings.cache == "none" and not model.shape.causal
    padding = batching.PADDING if whole else None
    for places in batching.batches([len(rows[row]) for row in open_rows], batch_size, padding):
        batch = [open_rows[place] for place in places]
        canvas = Canvas.of(
            batch, [rows[row] for row in batch], [slots[row] for row in batch], model.shape, device
        )
        filled |= write(canvas)
    traces = [] if recorder is None else [recorder.trace(row) for row in range(len(rows))]
    return [filled.get(row, []) for row in range(len(rows))], traces
