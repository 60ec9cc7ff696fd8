r"""The process in which math-verify (sympy) compares mathematical answers.

    python -m raymdm.tasks.math_checker

Started by `raymdm.tasks.math_answers`. A request is `[gold, answer]`, the LaTeX of both; the reply
is whether they are equal. Only math-verify's LaTeX grammar reads them: its reader of plain
expressions hands the text to sympy's `parse_expr`, which runs it as code.
"""

import contextlib
import logging
import resource
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify

from raymdm.tasks.timed import serve

MEMORY_BYTES = 4 * 2**30
"""Address space: `10^{10^{10}}` is refused, not computed."""
_LATEX = [LatexExtractionConfig()]


def equal(request: list[str]) -> bool:
    """Whether an answer is the gold one. Time limits are kept outside, by `timed`."""
    gold, answer = request
    return bool(verify(_gold(gold), _read(answer), timeout_seconds=None))


def _read(latex: str) -> Any:
    # As inline mathematics; dollars of its own would end that early.
    return parse(f"${latex.strip().strip('$')}$", _LATEX, parsing_timeout=None)


_gold = lru_cache(maxsize=4096)(_read)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ValueError, OSError):  # not every system keeps such a limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.RLIM_INFINITY))
    serve(equal)
