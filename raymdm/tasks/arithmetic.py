"""Arithmetic over whole numbers, worked out exactly: a reader of expressions, and a search for one.

The reader is a small grammar of its own; nothing that a model wrote is ever run.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

LONGEST = 200
"""Characters of an expression."""
DEEPEST = 20
"""Parentheses and signs inside each other."""
_TOKEN = re.compile(r"\s*([0-9]{1,9}(?![0-9.])|[-+*/()])")
_SPELLINGS = {
    "\\times": "*",
    "\\cdot": "*",
    "\\div": "/",
    "\\left": "",
    "\\right": "",
    "\N{MULTIPLICATION SIGN}": "*",
    "\N{MIDDLE DOT}": "*",
    "\N{DOT OPERATOR}": "*",
    "\N{DIVISION SIGN}": "/",
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "[": "(",
    "]": ")",
}


class ExpressionError(ValueError):
    """The text is no expression, or one without a value (a division by zero)."""


@dataclass(frozen=True)
class Expression:
    """An expression that was read.

    Attributes:
        value: exact.
        numbers: the whole numbers in it, as written, sorted.
    """

    value: Fraction
    numbers: tuple[int, ...]


def read_expression(text: str) -> Expression:
    """Numbers, `+ - * /` (and their typographic and LaTeX spellings), signs and parentheses.

    Raises:
        ExpressionError: anything else, more than `LONGEST` characters, or nesting beyond `DEEPEST`.
    """
    if len(text) > LONGEST:
        raise ExpressionError(f"longer than {LONGEST} characters")
    for spelling, plain in _SPELLINGS.items():
        text = text.replace(spelling, plain)
    tokens: list[str] = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"{text[at:].lstrip()[:1]!r} does not belong here")
        tokens.append(match[1])
        at = match.end()
    reader = _Reader(tokens)
    value = reader.sum(0)
    if reader.next is not None:
        raise ExpressionError(f"{reader.next!r} does not belong here")
    return Expression(value, tuple(sorted(int(token) for token in tokens if token.isdigit())))


def solve(numbers: Sequence[int], target: int) -> str | None:
    """An expression of that value which uses every number once, or None where there is none.

    Tries everything: a millisecond for three numbers, about a second for five without a solution.
    """
    return next(_solutions([(Fraction(n), str(n)) for n in numbers], target), None)


@dataclass
class _Reader:
    """Recursive descent: a sum of products of signed numbers and parentheses."""

    tokens: list[str]
    at: int = 0

    @property
    def next(self) -> str | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self) -> str | None:
        token = self.next
        self.at += 1
        return token

    def sum(self, depth: int) -> Fraction:
        value = self.product(depth)
        while self.next in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            value += sign * self.product(depth)
        return value

    def product(self, depth: int) -> Fraction:
        value = self.signed(depth)
        while self.next in ("*", "/"):
            if self.take() == "*":
                value *= self.signed(depth)
            elif divisor := self.signed(depth):
                value /= divisor
            else:
                raise ExpressionError("a division by zero")
        return value

    def signed(self, depth: int) -> Fraction:
        if depth > DEEPEST:
            raise ExpressionError(f"nested deeper than {DEEPEST}")
        token = self.take()
        if token in ("+", "-"):
            value = self.signed(depth + 1)
            return value if token == "+" else -value
        if token == "(":
            value = self.sum(depth + 1)
            if self.take() != ")":
                raise ExpressionError("a parenthesis is not closed")
            return value
        if token is None or not token.isdigit():
            raise ExpressionError(f"a number is missing before {token or 'the end'!r}")
        return Fraction(int(token))


Term = tuple[Fraction, str]


def _solutions(terms: Sequence[Term], target: int) -> Iterator[str]:
    if len(terms) == 1:
        value, text = terms[0]
        if value == target:
            yield text[1:-1] if text.startswith("(") else text
        return
    for first, second in combinations(range(len(terms)), 2):
        others = [term for at, term in enumerate(terms) if at not in (first, second)]
        for joined in _joined(terms[first], terms[second]):
            yield from _solutions([joined, *others], target)


def _joined(first: Term, second: Term) -> Iterator[Term]:
    """Every value that two terms make."""
    (a, x), (b, y) = first, second
    yield a + b, f"({x} + {y})"
    yield a - b, f"({x} - {y})"
    yield b - a, f"({y} - {x})"
    yield a * b, f"({x} * {y})"
    if b:
        yield a / b, f"({x} / {y})"
    if a:
        yield b / a, f"({y} / {x})"
