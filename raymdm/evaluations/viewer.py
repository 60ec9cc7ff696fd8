"""One page per item that shows how its response was denoised: `traces/ITEM.html`.

Beside each other what the model read at a step and everything it predicted from that, coloured by
confidence; above them which steps had the right answer. A page is one file, needs no network and
opens at a step by `#step=12`. A trace of 128 steps and 512 tokens takes about a megabyte.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from raymdm.decoding import Trace
from raymdm.evaluations.pages import render, write_page
from raymdm.evaluations.tokens import token_text
from raymdm.verdict.items import first_right_step, over_denoised

Value = TypeVar("Value")

MOST_RUNS = 5
"""Unbroken runs of right steps that are linked at the top; the strip shows all of them."""


@dataclass(frozen=True)
class ItemTrace:
    """Everything that the page of one item shows."""

    id: str
    prompt: str
    reference: str
    """Text of the reference answer; empty where there is none."""
    tokens: Mapping[int, str]
    """Readable text of every token id in the arrays."""
    mask_token_id: int
    eos_token_id: int
    start: npt.NDArray[np.int64]
    """[n], what the first step read: all masks."""
    states: npt.NDArray[np.int64]
    """[S, n], right after each step, masks included."""
    predictions: npt.NDArray[np.int64]
    """[S, n], the full prediction of each step."""
    confidence: npt.NDArray[np.float32]
    """[S, n], probability of the predicted tokens; NaN where nothing was predicted."""
    positions: npt.NDArray[np.int64]
    """[n], counted from the first that was written."""
    texts: Sequence[str]
    """[S], the text of each step's prediction up to its first EOS."""
    answers: Sequence[str | None]
    """[S], the answer found in each of them."""
    correct: Sequence[bool | None]
    """[S], whether each is right; None where nothing scores it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """All settings of the sampler."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What else the page names: model, data set, task."""

    @property
    def scored(self) -> bool:
        """Whether right and wrong are known at every step."""
        return bool(self.correct) and None not in self.correct


def item_trace(
    trace: Trace,
    tokenizer: Any,
    prompt: str,
    eos_token_id: int,
    score: Callable[[str], float] | None,
    *,
    id: str,
    extract: Callable[[str], str | None] = lambda text: None,
    reference: str = "",
    settings: Mapping[str, Any] | None = None,
    facts: Mapping[str, str] | None = None,
) -> ItemTrace:
    """A trace with its texts, answers and scores. Equal texts are scored once.

    Args:
        trace: of one response.
        tokenizer: that wrote the prompt.
        prompt: its text.
        eos_token_id: ends the text of a step.
        score: text of a response -> 1.0 for right; None where there is no reference.
        id: the item's name.
        extract: text of a response -> the answer in it.
        reference: text of the reference answer.
        settings: of the sampler, all of them.
        facts: what else the page names, such as the model.
    """
    states, predictions = trace.states.numpy(), trace.predictions.numpy()
    start = trace.start.numpy()
    seen = np.unique(np.concatenate([start, states.ravel(), predictions.ravel()]))
    texts = [_text(tokenizer, row, eos_token_id) for row in predictions.tolist()]
    right = None if score is None else _once(lambda text: score(text) >= 1.0, texts)
    answers = _once(extract, texts)
    return ItemTrace(
        id=id,
        prompt=prompt,
        reference=reference,
        tokens={int(number): token_text(tokenizer, int(number)) for number in seen},
        mask_token_id=int(start[0]),
        eos_token_id=eos_token_id,
        start=start,
        states=states,
        predictions=predictions,
        confidence=trace.confidence.numpy(),
        positions=trace.positions.numpy() - int(trace.positions[0]),
        texts=texts,
        answers=[answers[text] for text in texts],
        correct=[None if right is None else right[text] for text in texts],
        settings=dict(settings or {}),
        facts=dict(facts or {}),
    )


def page_name(item: str) -> str:
    """File name of an item's page: readable, safe on every file system, its own for every id."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", item).strip("-.")[:60]
    return f"{readable or 'item'}-{hashlib.sha256(_bytes(item)).hexdigest()[:8]}.html"


def write_trace(folder: Path, item: ItemTrace, report: str | None = None) -> Path:
    """Write the page of an item into a folder and return its path.

    Args:
        folder: made where it is missing.
        item: what the page shows.
        report: link back to the report, as seen from the folder.

    Raises:
        DataError: the folder cannot be written to.
    """
    return write_page(folder / page_name(item.id), render_trace(item, report))


def render_trace(item: ItemTrace, report: str | None = None) -> str:
    """The page as text. Everything that comes from a model or a data file is escaped."""
    kind, sentence = outcome(item)
    return render(
        "viewer.html.j2",
        "viewer.js",
        item=item,
        report=report,
        kind=kind,
        sentence=sentence,
        right=_runs(item.correct),
        most_runs=MOST_RUNS,
        final_answer=item.answers[-1],
        payload=payload(item),
    )


def outcome(item: ItemTrace) -> tuple[str, str]:
    """How the item ended, in a word (`over`, `right`, `wrong`, `unknown`) and in a sentence."""
    if not item.scored:
        return "unknown", "Nothing scores this response"
    correct = [bool(right) for right in item.correct]
    first = first_right_step(correct)
    if over_denoised(correct):
        return "over", "Over-denoised: right at some step, wrong at the end"
    if first is None:
        return "wrong", "Wrong at every step"
    if not all(correct[first - 1 :]):
        return "right", f"Right at the end; first right at step {first}, wrong again in between"
    return "right", f"Right at the end, and since step {first}"


def payload(item: ItemTrace) -> dict[str, Any]:
    """What the script reads, as plain JSON.

    Tokens are numbers into the lists `ids` and `tokens`, so that each text is written once;
    confidences have three digits, null where nothing was predicted.
    """
    ids = sorted(item.tokens)
    place = np.zeros(max(ids) + 1, dtype=np.int64)
    place[ids] = np.arange(len(ids))
    known = np.isfinite(item.confidence)
    rounded = np.round(item.confidence.astype(np.float64), 3)
    return {
        "ids": ids,
        "tokens": [item.tokens[number] for number in ids],
        "mask": int(place[item.mask_token_id]),
        "eos": int(place[item.eos_token_id]) if item.eos_token_id in item.tokens else -1,
        "positions": item.positions.tolist(),
        "start": place[item.start].tolist(),
        "states": place[item.states].tolist(),
        "predictions": place[item.predictions].tolist(),
        "confidence": np.where(known, rounded, None).tolist(),
        "answers": list(item.answers),
        "correct": list(item.correct),
    }


def _runs(correct: Sequence[bool | None]) -> list[tuple[int, int]]:
    """First and last step, from 1, of each unbroken run of right steps."""

    def runs() -> Iterator[tuple[int, int]]:
        first = 0
        for step, right in enumerate([*correct, False], start=1):
            if right and not first:
                first = step
            elif first and not right:
                yield first, step - 1
                first = 0

    return list(runs())


def _text(tokenizer: Any, ids: list[int], eos_token_id: int) -> str:
    if eos_token_id in ids:
        ids = ids[: ids.index(eos_token_id)]
    return str(tokenizer.decode(ids, skip_special_tokens=True))


def _once(function: Callable[[str], Value], texts: Sequence[str]) -> dict[str, Value]:
    """The function's value for each distinct text."""
    return {text: function(text) for text in dict.fromkeys(texts)}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogatepass")
