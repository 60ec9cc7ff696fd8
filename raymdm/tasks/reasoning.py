"""Generated tasks of the package reasoning-gym: nothing to download, as many rows as wanted.

`task.name: reasoning_gym:basic_arithmetic` with `task.options` for the task's own settings; the
templates read `question`, `answer` and the top-level fields of the item's metadata.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

from raymdm.config.data import TaskSection
from raymdm.errors import ConfigurationError
from raymdm.tasks.spec import PAGE_ROWS, Example, TaskSpec
from raymdm.tasks.template import check_template, fill_template, nearest

PROMPT = "{question}\n"
RESPONSE = "{answer}"
# The package gives part marks (for an answer inside a longer text, say). Right means full marks;
# the small allowance is for scorers that add up fractions.
FULL_MARKS = 0.999
_ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


# Read in the source of reasoning-gym 0.1.25: `eval` or sympy's `parse_expr` on a model's text.
_EVALUATES_RESPONSES = frozenset(
    (
        "binary_matrix",
        "countdown",
        "intermediate_integration",
        "n_queens",
        "polynomial_multiplication",
        "puzzle24",
        "simple_integration",
        "spiral_matrix",
        "string_insertion",
    )
)


def make(section: TaskSection) -> TaskSpec:
    """The task `reasoning_gym:<name>`.

    Raises:
        ConfigurationError: an unknown name or option (naming the nearest), a value that the task
            refuses, or a broken template.
    """
    name = section.name.partition(":")[2]
    prompt = PROMPT if section.prompt_template is None else section.prompt_template
    response = RESPONSE if section.response_template is None else section.response_template
    check_template(prompt, "task.prompt_template")
    check_template(response, "task.response_template")
    if name in _EVALUATES_RESPONSES:
        raise ConfigurationError(
            f"task.name {section.name}: the package's scorer runs the response as Python or sympy "
            "code, and a model's output must not be run; choose another task"
        )
    scorer = _create(name, section.options, seed=0)

    def example(row: Mapping[str, Any]) -> Example:
        # The item's own question and answer win over metadata of the same names.
        values = {**(row.get("metadata") or {}), **row}
        return Example(
            prompt=fill_template(prompt, values, "task.prompt_template"),
            response=fill_template(response, values, "task.response_template"),
            reference=dict(row),
        )

    def score(text: str, reference: Mapping[str, Any]) -> float:
        try:
            marks = scorer.score_answer(extract(text), dict(reference))
        except Exception:  # a package's scorer may stumble over any text a model writes
            return 0.0
        return float(marks >= FULL_MARKS)

    def generate(seed: int, page: int) -> list[Mapping[str, Any]]:
        # The package numbers its rows by adding to the seed, so that neighbouring seeds share
        # nearly all of them, and a few tasks depend on the size asked for. Pages of one size, each
        # with a hashed seed, avoid both.
        dataset = _create(name, section.options, seed=page_seed(seed, page))
        return [dataset[index] for index in range(PAGE_ROWS)]

    return TaskSpec(section.name, example, extract, score, generate)


def extract(text: str) -> str | None:
    """The last `<answer>…</answer>` of a response, else all of it, without white space around."""
    tagged = _ANSWER_TAG.findall(text)
    return (tagged[-1] if tagged else text).strip() or None


def page_seed(seed: int, page: int) -> int:
    """The package's seed for one page (31 bits: some tasks seed numpy with it)."""
    digest = hashlib.sha256(f"{seed}:{page}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@lru_cache(maxsize=1)
def _package() -> tuple[Any, Mapping[str, Any]]:
    """The package's `create_dataset` and its table of tasks; importing it takes seconds."""
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    return reasoning_gym.create_dataset, DATASETS


def _create(name: str, options: Mapping[str, Any], seed: int) -> Any:
    create_dataset, known = _package()
    if name not in known:
        raise ConfigurationError(
            f"task.name: reasoning_gym has no task {name!r}{nearest(name, known)}; its tasks are "
            "listed at https://github.com/open-thought/reasoning-gym/blob/main/GALLERY.md"
        )
    allowed = {f.name for f in fields(known[name][1])} - {"seed", "size"}
    for option in options:
        if option not in allowed:
            raise ConfigurationError(
                f"task.options: {name} has no option {option!r}{nearest(option, allowed)}; "
                f"it has: {', '.join(sorted(allowed))}"
            )
    try:
        return create_dataset(name, seed=seed, size=PAGE_ROWS, **options)
    except (AssertionError, TypeError, ValueError, KeyError) as error:
        raise ConfigurationError(f"task.options of {name}: {error}") from error
