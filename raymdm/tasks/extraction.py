r"""Where in a response the answer stands: a box, a tag, or the sentence that announces it."""

import re
from typing import NamedTuple

_BOX = re.compile(r"\\(?:boxed|fbox)\b\s*")
_BARE = re.compile(r"[^\s$\\{},;]+")
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL | re.IGNORECASE)
_STATED = re.compile(r"\banswers?(?:\s*(?:is|are)\b\s*:?|\s*:|\s*=)\**\s*", re.IGNORECASE)
_CLAUSE_END = re.compile(
    r"[.!?](?=\s|$)|\n|;\s|,\s|\s\(|\s(?:because|since|as|so|which|where|not|instead)\b",
    re.IGNORECASE,
)


class Box(NamedTuple):
    r"""A closed `\boxed{…}`."""

    start: int
    end: int
    """One after its last character."""
    content: str


def boxes(text: str) -> list[Box]:
    r"""All closed outermost `\boxed{…}` and `\fbox{…}` of a text, and `\boxed 5`, in order.

    Braces are counted, escaped ones (`\{`) are not. A box that is never closed is none: the
    response was cut inside it.
    """
    found: list[Box] = []
    at = 0
    while opening := _BOX.search(text, at):
        at = opening.end()
        if text[at : at + 1] == "{":
            end = _closing_brace(text, at)
            if end is None:
                continue
            found.append(Box(opening.start(), end, text[at + 1 : end - 1]))
            at = end
        elif bare := _BARE.match(text, at):
            at = bare.end()
            found.append(Box(opening.start(), at, bare[0].rstrip(".")))
    return found


def last_boxed(text: str) -> str | None:
    r"""Content of the last closed box, the innermost one where boxes are nested, or None."""
    found = boxes(text)
    if not found:
        return None
    content = found[-1].content
    inner = last_boxed(content)
    return content if inner is None else inner


def last_tagged(text: str) -> str | None:
    """Content of the last closed `<answer>…</answer>` without white space around it, or None."""
    tagged = _TAG.findall(text)
    return tagged[-1].strip() if tagged else None


def stated(text: str) -> str | None:
    """The clause after the last "answer is" or "answer:", or None where nothing follows it."""
    announced = list(_STATED.finditer(text))
    if not announced:
        return None
    rest = text[announced[-1].end() :].lstrip()
    return _CLAUSE_END.split(rest, maxsplit=1)[0].strip(" *`") or None


def _closing_brace(text: str, opening: int) -> int | None:
    """The place after the brace that closes the one at `opening`, or None."""
    depth = 0
    escaped = False
    for position in range(opening, len(text)):
        character = text[position]
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return position + 1
    return None
