"""One page per item that shows how its response was denoised: `traces/ITEM.html`.

Beside each other what the model read at a step and everything it predicted from that, coloured by
confidence; above them which steps had the right answer. A page is one file, needs no network and
opens at a step by `#step=12`. A trace of 128 steps and 512 tokens takes about a megabyte.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from raymdm.decoding import Trace
from raymdm.decoding.text import response_text
from raymdm.evaluations.pages import render, write_page
from raymdm.evaluations.tokens import token_text
from raymdm.verdict.items import first_right_step, over_denoised

Value = TypeVar("Value")

READ_BY_SCRIPT = (
    *("ids", "tokens", "mask", "eos", "positions", "start", "states", "predictions", "confidence"),
    *("answers", "correct"),
)
"""Fields that the page holds as JSON; the others are text in it."""
MOST_RUNS = 5
"""Unbroken runs of right steps that are linked at the top; the strip shows all of them."""


@dataclass(frozen=True)
class ItemTrace:
    """Everything that the page of one item shows, as plain JSON can hold it.

    `as_json` gives that, `ItemTrace(**json)` takes it back. A token is a number into the lists
    `ids` and `tokens`, so that each text is kept once. S steps, n positions.
    """

    id: str
    prompt: str
    reference_answer: str
    """Empty where there is none."""
    ids: list[int]
    """Vocabulary id of every token that occurs."""
    tokens: list[str]
    """Its readable text."""
    mask: int
    """The mask's number in these lists."""
    eos: int
    """That of EOS; -1 where it does not occur."""
    positions: list[int]
    """[n], counted from the first that was written."""
    start: list[int]
    """[n], what the first step read: all masks."""
    states: list[list[int]]
    """[S][n], right after each step, masks included."""
    predictions: list[list[int]]
    """[S][n], the full prediction of each step."""
    confidence: list[list[float | None]]
    """[S][n], probability of the predicted tokens, three digits; None where there are none."""
    texts: list[str]
    """[S], the text of each step's prediction up to its first EOS."""
    answers: list[str | None]
    """[S], the answer found in each of them."""
    correct: list[bool | None]
    """[S], whether each is right; None where nothing scores it."""
    settings: dict[str, Any]
    """All settings of the sampler."""
    model: str
    data: str

    @property
    def scored(self) -> bool:
        """Whether right and wrong are known at every step."""
        return bool(self.correct) and None not in self.correct

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def item_trace(
    trace: Trace,
    tokenizer: Any,
    prompt: Sequence[int],
    eos_token_id: int,
    score: Callable[[str], float] | None,
    *,
    item_id: str,
    reference_answer: str = "",
    extract: Callable[[str], str | None] = lambda text: None,
    settings: Mapping[str, Any] | None = None,
    model: str = "",
    data: str = "",
) -> ItemTrace:
    """A trace with its texts, answers and scores. Equal texts are scored once.

    Args:
        trace: of one response.
        tokenizer: of the model.
        prompt: token ids.
        eos_token_id: ends the text of a step.
        score: text of a response -> 1.0 for right; None where nothing scores it.
        item_id: the item's name.
        reference_answer: its text.
        extract: text of a response -> the answer in it.
        settings: of the sampler, all of them.
        model: what wrote the response.
        data: where the item comes from.
    """
    ids, numbers = np.unique(
        np.concatenate([trace.start[None], trace.states, trace.predictions]), return_inverse=True
    )
    steps = len(trace.states)
    start, states, predictions = np.split(numbers.reshape(2 * steps + 1, -1), [1, steps + 1])
    place = {int(number): place for place, number in enumerate(ids)}
    sure = trace.confidence.numpy().astype(np.float64).round(3)
    texts = [response_text(tokenizer, row, eos_token_id) for row in trace.predictions.tolist()]
    right = _once(lambda text: None if score is None else score(text) >= 1.0, texts)
    answers = _once(extract, texts)
    return ItemTrace(
        id=item_id,
        prompt=str(tokenizer.decode(prompt)),
        reference_answer=reference_answer,
        ids=list(place),
        tokens=[token_text(tokenizer, number) for number in place],
        mask=int(start[0, 0]),
        eos=place.get(eos_token_id, -1),
        positions=(trace.positions - trace.positions[0]).tolist(),
        start=start[0].tolist(),
        states=states.tolist(),
        predictions=predictions.tolist(),
        confidence=np.where(np.isfinite(sure), sure, None).tolist(),
        texts=texts,
        answers=[answers[text] for text in texts],
        correct=[right[text] for text in texts],
        settings=dict(settings or {}),
        model=model,
        data=data,
    )


def page_name(item: str) -> str:
    """File name of an item's page: readable, safe on every file system, its own for every id."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", item).strip("-.")[:60]
    name = item.encode("utf-8", errors="surrogatepass")
    return f"{readable or 'item'}-{hashlib.sha256(name).hexdigest()[:8]}.html"


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
        right=list(_runs(item.correct)),
        most_runs=MOST_RUNS,
        final_answer=item.answers[-1],
        steps={name: getattr(item, name) for name in READ_BY_SCRIPT},
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


def _runs(correct: Sequence[bool | None]) -> Iterator[tuple[int, int]]:
    """First and last step, from 1, of each unbroken run of right steps."""
    for right, run in groupby(enumerate(correct, start=1), key=itemgetter(1)):
        if right:
            steps = [step for step, _ in run]
            yield steps[0], steps[-1]


def _once(function: Callable[[str], Value], texts: Sequence[str]) -> dict[str, Value]:
    """The function's value for each distinct text."""
    return {text: function(text) for text in dict.fromkeys(texts)}
