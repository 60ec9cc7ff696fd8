r"""OpenScienceReasoning-2: science questions with long solutions. Fields `input` and `output`.

The answer stands in the output's last `\boxed{}`: the letter of a choice, or a formula. A field
`expected_answer` comes before it. A row that has neither can be trained on and scores 0.
"""

import re
from collections.abc import Mapping
from typing import Any

from raymdm.config.data import TaskSection
from raymdm.tasks.math_answers import FIGURES, count_checks, math_answer, verify
from raymdm.tasks.options import NoOptions, read_options
from raymdm.tasks.spec import Example, TaskSpec
from raymdm.tasks.template import fill_template, templates, text_field

PROMPT = "{input}\n"  # the questions ask for a box themselves
RESPONSE = "{output}"
DELIMITER = r"\\boxed\{"
_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathsf|boldsymbol)\s*\{([^{}]*)\}")
# `C`, `(C)`, `C.`, `C) the mitochondrion`, `option C: …`; not `Carbon`, and not `A cat`.
_CHOICE = re.compile(
    r"(?:(?:option|choice|answer)\s+)?[(\[]?([A-Z])(?:[)\].:]+(?:\s|$)|\s*$)", re.IGNORECASE
)


def make(section: TaskSection) -> TaskSpec:
    """The task.

    Raises:
        ConfigurationError: options (it has none) or a broken template.
    """
    read_options(section, NoOptions)
    prompt, response = templates(section, PROMPT, RESPONSE)

    def example(row: Mapping[str, Any]) -> Example:
        text_field(row, "input")
        answer = math_answer(text_field(row, "output"))
        if row.get("expected_answer"):
            answer = text_field(row, "expected_answer").strip()
        return Example(
            prompt=fill_template(prompt, row, "task.prompt_template"),
            response=fill_template(response, row, "task.response_template"),
            reference={"answer": answer},
        )

    return TaskSpec(
        "openscience",
        example,
        math_answer,
        score,
        delimiters=(DELIMITER,),
        counts=counts,
        figures=FIGURES,
    )


def choice(answer: str) -> str | None:
    r"""The letter of a multiple-choice answer (`\text{(C) water}` -> `C`), or None."""
    plain = _COMMAND.sub(r"\1", answer).replace("*", "").strip(" $\n\t")
    found = _CHOICE.match(plain)
    return found[1].upper() if found else None


def score(text: str, reference: Mapping[str, Any]) -> float:
    """1.0 for the right letter where the gold answer is one, else for an equal formula."""
    gold, prediction = reference["answer"], math_answer(text)
    if gold is None or prediction is None:
        return 0.0
    letter = choice(gold)
    return float(choice(prediction) == letter if letter else verify(gold, prediction))


def counts(text: str, reference: Mapping[str, Any]) -> Mapping[str, float]:
    """Checks by math-verify; a letter needs none."""
    gold = reference["answer"]
    return count_checks(gold or "", None if not gold or choice(gold) else math_answer(text))
