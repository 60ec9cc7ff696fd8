r"""Lists of numbers and names as answers: read from a response, matched with the gold ones.

A list is written `\boxed{a | b}`. A response may also use `;` or commas, or a box for each answer.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from raymdm.tasks.extraction import boxes, last_tagged, stated
from raymdm.tasks.numbers import canonical, numbers_in

Answer = str | int | float
SEPARATOR = " | "
_BETWEEN_BOXES = re.compile(r"[\s$,;.&\\]*(?:and|or)?[\s$,;\\]*", re.IGNORECASE)
_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
# A comma with three digits behind it belongs to a number (`1,234`), else it separates.
_COMMA = re.compile(r",(?!\d{3}(?!\d))|(?<!\d),")
_COMMA_OR_AND = re.compile(rf"(?:{_COMMA.pattern})(?:\s*and\s)?|\s+and\s+", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?\s*\$?\s*-?(?:\d[\d,]*)?(?:\.\d+)?\s*(?:%|percent)?", re.IGNORECASE)


class Match(NamedTuple):
    """How many of a list's answers are right."""

    right: int
    predicted: int
    gold: int

    @property
    def is_perfect(self) -> bool:
        """All gold answers are there, and nothing else."""
        return self.right == self.predicted == self.gold


def list_answer(text: str) -> str | None:
    r"""The answer list of a response as one text, or None where there is none.

    It is the content of the last boxes (several where only commas or "and" stand between them),
    else of `<answer>…</answer>`, else the clause after the last "answer is".
    """
    found = boxes(text)
    if found:
        first = len(found) - 1
        while first and _BETWEEN_BOXES.fullmatch(text[found[first - 1].end : found[first].start]):
            first -= 1
        contents = [box.content.strip() for box in found[first:]]
        return SEPARATOR.join(filter(None, contents)) or None
    return last_tagged(text) or (None if "\\boxed" in text else stated(text))


def match_answers(prediction: str, gold: Sequence[Answer], tolerance: float) -> Match:
    """The best match of a predicted list with the gold one.

    The list is read at its commas, and where that is ambiguous (`men and women`, a name with a
    comma) as a whole and at every "and" too; the reading with the most right answers counts, of
    equals the first.
    """
    readings = _readings(_plain(prediction))
    matches = [Match(_matched(one, gold, tolerance), len(one), len(gold)) for one in readings]
    return max(matches, key=lambda match: 2 * match.right / (match.predicted + match.gold))


def same(prediction: str, gold: Answer, tolerance: float) -> bool:
    """Whether one answer is right.

    Numbers may differ by less than `tolerance` (and less than half the gold one, so that 0 is not
    0.004). Thousands separators, currency signs and a unit behind the number do not matter, and
    `52.1%` is 52.1 as well as 0.521: tables give percentages in both ways. Names are compared
    without case, white space, quotes and a full stop.
    """
    if isinstance(gold, str):
        if _name(prediction) == _name(_plain(gold)):
            return True
        if not _is_number(gold):
            return False
    wanted = numbers_in(str(gold)) if isinstance(gold, str) else [canonical(str(gold))]
    given = numbers_in(prediction)
    if len(given) != 1 or len(wanted) != 1:
        return False
    value, target = Decimal(given[0]), Decimal(wanted[0])
    near = min(Decimal(str(tolerance)), abs(target) / 2)
    values = (value, value / 100) if re.search(r"%|\bper ?cent", prediction) else (value,)
    return any(one == target or abs(one - target) < near for one in values)


def _readings(text: str) -> list[list[str]]:
    if not text.strip():
        return [[]]
    for separator in ("|", ";"):
        if separator in text:
            return [_items(text.split(separator))]
    parts = [_items(split.split(text)) for split in (_COMMA, _COMMA_OR_AND)]
    return [parts[0], [text.strip()], parts[1]]


def _items(parts: list[str]) -> list[str]:
    return [part.strip() for part in parts if part.strip()]


def _matched(predictions: Sequence[str], gold: Sequence[Answer], tolerance: float) -> int:
    """The largest number of pairs in which every answer of either side is used at most once."""
    partner: dict[int, int] = {}  # of a gold answer
    edges = [[g for g, one in enumerate(gold) if same(p, one, tolerance)] for p in predictions]

    def place(prediction: int, seen: set[int]) -> bool:
        for answer in edges[prediction]:
            if answer not in seen:
                seen.add(answer)
                if answer not in partner or place(partner[answer], seen):
                    partner[answer] = prediction
                    return True
        return False

    return sum(place(prediction, set()) for prediction in range(len(predictions)))


def _plain(text: str) -> str:
    """Without LaTeX around names and signs."""
    text = _COMMAND.sub(r"\1", text).replace("{,}", ",").replace("\\,", " ").replace("~", " ")
    return (
        re.sub(r"\\([%$&#_{} ])", r"\1", text).strip().removeprefix("$").removesuffix("$").strip()
    )


def _name(text: str) -> str:
    return " ".join(text.lower().split()).strip(" .\"'`“”‘’*")


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text.strip()) is not None and len(numbers_in(text)) == 1
