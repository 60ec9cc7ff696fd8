r"""Mathematical answers: `\frac{1}{2}` is `0.5`, `(x+1)^2` is `x^2+2x+1`, sets have no order.

Compared by math-verify in a process of its own (`raymdm.tasks.timed`): sympy can take for ever over
a formula that a model made up.
"""

import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from raymdm.tasks.extraction import last_boxed, last_tagged, stated
from raymdm.tasks.timed import CheckerProcess, Reply

CHECKER = CheckerProcess((sys.executable, "-m", "raymdm.tasks.math_checker"))
"""One for the process, started at the first answer that has to be computed."""
LONGEST = 1000
"""Characters; what is longer is no answer but a text (MATH's longest has 90)."""
_BASE = re.compile(r"_\{?(\d+)\}?\s*\$?$")  # of a number: math-verify reads past it
FIGURES = {
    "checks_timed_out": ("checks_timed_out", "checks"),
    "checks_crashed": ("checks_crashed", "checks"),
}
"""`TaskSpec.figures` of tasks that count their checks with `count_checks`."""


def math_answer(text: str) -> str | None:
    r"""The answer of a response: its last box, else `<answer>…</answer>`, else the clause after its
    last "answer is"; None where there is none of them or it is empty.
    """
    for find in (last_boxed, last_tagged):
        found = find(text)
        if found is not None:
            return found.strip() or None
    clause = stated(text)
    if clause is None:
        return None
    parts = clause.split("$")
    return (parts[1] if len(parts) > 2 else clause).strip() or None


def verify(gold: str, prediction: str) -> bool:
    """Whether a predicted answer equals the gold one. A check that hangs or crashes says no.

    The order matters: math-verify forgives a prediction what it does not forgive a gold answer.
    """
    return check(gold, prediction).value is True


@lru_cache(maxsize=1 << 15)
def check(gold: str, prediction: str) -> Reply:
    """The same, with what went wrong. Remembered: sampled responses repeat their answers."""
    if gold.strip() == prediction.strip():
        return Reply(bool(gold.strip()))
    bases = {found[1] for found in map(_BASE.search, (gold, prediction)) if found}
    if len(prediction) > LONGEST or len(bases) > 1:
        return Reply(False)
    return CHECKER.ask([gold, prediction])


def count_checks(gold: str, prediction: str | None) -> Mapping[str, float]:
    """Counts of one item: checks made, and those that took too long or crashed (and are wrong)."""
    if prediction is None:
        return {"checks": 0.0, "checks_timed_out": 0.0, "checks_crashed": 0.0}
    failure = check(gold, prediction).failure
    return {
        "checks": 1.0,
        "checks_timed_out": float(failure == "timed_out"),
        "checks_crashed": float(failure == "crashed"),
    }


def score(text: str, reference: Mapping[str, Any]) -> float:
    """1.0 where the response's answer equals `reference["answer"]`."""
    prediction = math_answer(text)
    return float(prediction is not None and verify(str(reference["answer"]), prediction))


def counts(text: str, reference: Mapping[str, Any]) -> Mapping[str, float]:
    """`TaskSpec.counts` of the same."""
    return count_checks(str(reference["answer"]), math_answer(text))
