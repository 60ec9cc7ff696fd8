"""Countdown: reach a target from given numbers, using each exactly once, with + - * / and ( ).

Fields `nums` and `target` (Jiayi-Pan/Countdown-Tasks-3to4), or `input` and `output` as text (d1's
files: `"30,100,93"` and `"23"`). `prepare.train: generate` makes problems instead; see `Options`.
"""

import random
import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from raymdm.config.data import TaskSection
from raymdm.config.section import Section
from raymdm.errors import ConfigurationError, DataError
from raymdm.tasks.arithmetic import ExpressionError, read_expression, solve
from raymdm.tasks.extraction import last_boxed, last_tagged
from raymdm.tasks.options import read_options
from raymdm.tasks.reasoning import page_seed
from raymdm.tasks.spec import PAGE_ROWS, Example, TaskSpec
from raymdm.tasks.template import fill_template, nearest, templates

PROMPT = (
    "Using each of the numbers {numbers} exactly once, with + - * / and parentheses, write an "
    "expression that equals {target}. Put it in <answer> </answer>.\n"
)
RESPONSE = "<answer>{solution}</answer>"
DELIMITER = "</?answer>"
MOST_NUMBERS = 5
"""A solution for more of them is not searched for here: it would take minutes a row."""
ATTEMPTS = 100_000
"""Draws for one generated problem."""
# Digits and operators, LaTeX ones too. Words end it, the full stop of a sentence as well.
_RUN = re.compile(r"(?:[-+*/()=\d\s×÷·−–]|\\times|\\cdot|\\div|\\left|\\right)+")


class Options(Section):
    """Of generated problems; given rows do not read them."""

    numbers: list[int] = Field(default=[3], min_length=1, max_length=2)
    """How many numbers: `[3]`, or `[2, 4]` for from 2 to 4."""
    minimum: int = Field(default=1, ge=1)
    """The smallest number."""
    maximum: int = Field(default=20, le=10**6)
    """The largest number."""
    target_minimum: int = 1
    """The smallest target."""
    target_maximum: int = 100
    """The largest target."""

    @model_validator(mode="after")
    def _ranges(self) -> "Options":
        low, high = self.numbers[0], self.numbers[-1]
        if not 2 <= low <= high <= MOST_NUMBERS:
            raise ValueError(f"numbers: from 2 to {MOST_NUMBERS} numbers, the smaller one first")
        if self.minimum > self.maximum or self.target_minimum > self.target_maximum:
            raise ValueError("a minimum is above its maximum")
        return self


def make(section: TaskSection) -> TaskSpec:
    """The task. The templates know `{numbers}` (`30, 100, 93`), `{target}`, `{solution}` (found by
    search) and the row's own fields.

    Raises:
        ConfigurationError: an unknown or impossible option, or a broken template.
    """
    options = read_options(section, Options)
    prompt, response = templates(section, PROMPT, RESPONSE)

    def example(row: Mapping[str, Any]) -> Example:
        numbers, target = problem(row)
        values = {**row, "numbers": numbers, "target": target}
        if "{solution" in prompt + response:
            values["solution"] = solution(numbers, target)
        return Example(
            prompt=fill_template(prompt, values, "task.prompt_template"),
            response=fill_template(response, values, "task.response_template"),
            reference={"numbers": numbers, "target": target},
        )

    def generate(seed: int, page: int) -> list[Mapping[str, Any]]:
        source = random.Random(page_seed(seed, page))
        return [_draw(source, options) for _ in range(PAGE_ROWS)]

    return TaskSpec("countdown", example, extract, score, generate, delimiters=(DELIMITER,))


def problem(row: Mapping[str, Any]) -> tuple[list[int], int]:
    """Numbers and target of a row in either format.

    Raises:
        DataError: a field is missing, or not whole numbers.
    """
    names = ("input", "output") if "input" in row and "nums" not in row else ("nums", "target")
    for name in names:
        if name not in row:
            raise DataError(
                f"field {name!r} is missing{nearest(name, row)}; "
                f"fields found: {', '.join(map(str, row)) or 'none'}"
            )
    given, target = row[names[0]], row[names[1]]
    parts = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, list | tuple) or len(parts) < 2:
        raise DataError(f"field {names[0]!r} must hold two or more whole numbers, found {given!r}")
    return [_whole(part, names[0]) for part in parts], _whole(target, names[1])


def solution(numbers: list[int], target: int) -> str:
    """The first expression that a search finds. Raises DataError where there is none."""
    if len(numbers) > MOST_NUMBERS:
        raise DataError(
            f"{len(numbers)} numbers: a solution is searched for up to {MOST_NUMBERS}; give a "
            "task.response_template without {solution}"
        )
    found = solve(numbers, target)
    if found is None:
        raise DataError(f"{target} cannot be reached from {', '.join(map(str, numbers))}")
    return found


def extract(text: str) -> str | None:
    r"""The expression in a response: in the last `<answer>…</answer>`, else in the last `\boxed{}`,
    else the last run of digits and operators, which may hold an `=`.
    """
    for find in (last_tagged, last_boxed):
        found = find(text)
        if found is not None:
            return found.strip() or None
    if "<answer>" in text or "\\boxed" in text:
        return None  # cut short inside it
    runs = [
        run.strip()
        for line in text.splitlines()
        for run in _RUN.findall(line)
        if re.search(r"\d.*[-+*/×÷·−–\\].*\d", run)
    ]
    return runs[-1] if runs else None


def score(text: str, reference: Mapping[str, Any]) -> float:
    """1.0 for an expression that has the target's value and uses every given number exactly once.

    `a*b + c`, `a*b + c = 23` and `23 = a*b + c` are all the expression `a*b + c`; in a chain
    `a*b + c = 21 + 2 = 23` it is the first part. What stands last must then be the target.
    """
    answer = extract(text)
    if answer is None:
        return 0.0
    target = reference["target"]
    first, *others = (part.strip(" $.") for part in answer.split("="))
    if len(others) == 1 and first == str(target):
        first, others = others[0], []
    if others and others[-1] not in (str(target), "", "?"):
        return 0.0
    try:
        found = read_expression(first)
    except ExpressionError:
        return 0.0
    right = found.value == target and found.numbers == tuple(sorted(reference["numbers"]))
    return float(right)


def _draw(source: random.Random, options: Options) -> dict[str, Any]:
    """A problem with a solution: numbers are joined at random until the value is in range."""
    for _ in range(ATTEMPTS):
        count = source.randint(options.numbers[0], options.numbers[-1])
        numbers = [source.randint(options.minimum, options.maximum) for _ in range(count)]
        terms = list(numbers)
        while len(terms) > 1:
            source.shuffle(terms)
            a, b = terms.pop(), terms.pop()
            ways = [a + b, a - b, a * b] + ([a // b] if b and a % b == 0 else [])
            terms.append(source.choice(ways))
        if options.target_minimum <= terms[0] <= options.target_maximum:
            return {"nums": numbers, "target": terms[0]}
    raise ConfigurationError(
        f"task.options: no target from {options.target_minimum} to {options.target_maximum} came "
        f"up in {ATTEMPTS} draws of numbers from {options.minimum} to {options.maximum}; widen a "
        "range"
    )


def _whole(value: Any, name: str) -> int:
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and re.fullmatch(r"-?[0-9]{1,9}", text):
        return int(text)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise DataError(f"field {name!r} must hold whole numbers, found {value!r}")
