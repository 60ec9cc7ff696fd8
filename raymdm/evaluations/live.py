"""The live view in a terminal: a response while it is denoised."""

import time
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text
from torch import Tensor

from raymdm.models import ModelShape

_MASK, _END = "▒", "∎"
_MASKED, _FRESH, _PLAIN, _GIVEN = "dim", "bold green", "", "dim"
_FRAMES_A_SECOND = 15


class LiveView:
    """Shows one row at a time; `watch` is what the sampler calls. A context manager.

    Args:
        console: of the terminal.
        tokenizer: of the row's tokens.
        shape: of the model, which names the special tokens.
        row: what is shown before the first step, masks included.
        infill: the masks lie anywhere in a given text, which is shown; else they are the response,
            which its first EOS ends.
    """

    def __init__(
        self,
        console: Console,
        tokenizer: Any,
        shape: ModelShape,
        row: Sequence[int],
        *,
        infill: bool,
    ) -> None:
        self.tokenizer, self.shape, self.infill = tokenizer, shape, infill
        self.row, self.step, self.fresh = list(row), 0, set[int]()
        self.drawn = self.seconds = 0.0
        self.slots = [at for at, token in enumerate(row) if token == shape.mask_token_id]
        self.started = time.monotonic()
        self.live = Live(self._shown(), console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> "LiveView":
        self.live.start()
        self.started = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def watch(self, rows: list[int], states: Tensor) -> None:
        """Show the state after a step, int64[1, number of slots], if it is time for a frame."""
        self.step += 1
        self.seconds = time.monotonic() - self.started
        for slot, token in zip(self.slots, states[0].tolist(), strict=True):
            if token != self.row[slot]:
                self.row[slot] = token
                self.fresh.add(slot)
        if time.monotonic() - self.drawn > 1 / _FRAMES_A_SECOND:
            self.live.update(self._shown(), refresh=True)
            self.drawn, self.fresh = time.monotonic(), set()

    @property
    def figures(self) -> str:
        """`step 12  34/64 tokens  56 tokens/s`."""
        left = sum(self.row[slot] == self.shape.mask_token_id for slot in self.slots)
        written = len(self.slots) - left
        return (
            f"step {self.step}  {written}/{len(self.slots)} tokens  "
            f"{written / max(self.seconds, 1e-9):,.0f} tokens/s"
        )

    def _shown(self) -> Group:
        given = set(range(len(self.row))) - set(self.slots)
        text = styled_text(
            self.tokenizer, self.shape, self.row, self.fresh, given, ends=not self.infill
        )
        return Group(text, Text(self.figures, style="dim"))


def styled_text(
    tokenizer: Any,
    shape: ModelShape,
    tokens: Sequence[int],
    fresh: set[int],
    given: set[int],
    *,
    ends: bool,
) -> Text:
    """Tokens as a terminal shows them: masks as dim blocks, tokens just written in bold.

    Args:
        tokenizer: of the tokens.
        shape: names the special tokens.
        tokens: of the row.
        fresh: places that were written since the last frame.
        given: places that were never masked; dim.
        ends: the first EOS ends the text.
    """
    if ends and shape.eos_token_id in tokens:
        tokens = tokens[: tokens.index(shape.eos_token_id) + 1]

    def kind(place: int) -> tuple[str, str]:
        token = tokens[place]
        if token == shape.mask_token_id:
            return _MASK, _MASKED
        if token == shape.eos_token_id:
            return _END, _MASKED
        return "", _FRESH if place in fresh else _GIVEN if place in given else _PLAIN

    text, before = Text(), list[int]()
    for (symbol, style), places in groupby(range(len(tokens)), kind):
        run = [tokens[place] for place in places]
        if symbol:
            text.append(symbol * len(run), style)
            before = []
        else:
            # Decoded with what stands before it: a character may be several tokens, and some
            # tokenizers drop the space before the first one.
            known = tokenizer.decode(before) if before else ""
            before += run
            text.append(tokenizer.decode(before)[len(known) :], style)
    return text
