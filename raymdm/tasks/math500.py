r"""MATH-500: competition mathematics, test problems only. Fields `problem`, `solution`, `answer`.

The files of MATH itself have the same fields but `answer`; there it is the solution's last box. A
response template that does not name the solution needs none.
"""

from collections.abc import Mapping
from typing import Any

from raymdm.config.data import TaskSection
from raymdm.errors import DataError
from raymdm.tasks.extraction import last_boxed
from raymdm.tasks.math_answers import FIGURES, counts, math_answer, score
from raymdm.tasks.options import NoOptions, read_options
from raymdm.tasks.spec import Example, TaskSpec
from raymdm.tasks.template import check_template, fill_template, templates, text_field

PROMPT = "{problem}\nPut the final answer in \\boxed{{}}.\n"
RESPONSE = "{solution}"
DELIMITER = r"\\boxed\{"


def make(section: TaskSection) -> TaskSpec:
    """The task. The response is the solution as in the file.

    Raises:
        ConfigurationError: options (it has none) or a broken template.
    """
    read_options(section, NoOptions)
    prompt, response = templates(section, PROMPT, RESPONSE)
    writes_solution = "solution" in check_template(response, "task.response_template")

    def example(row: Mapping[str, Any]) -> Example:
        text_field(row, "problem")
        if writes_solution:
            text_field(row, "solution")
        if "answer" in row:
            answer: str | None = text_field(row, "answer")
        else:
            answer = last_boxed(text_field(row, "solution"))
        if not answer:
            raise DataError("field 'answer' is missing, and field 'solution' has no \\boxed answer")
        return Example(
            prompt=fill_template(prompt, row, "task.prompt_template"),
            response=fill_template(response, row, "task.response_template"),
            reference={"answer": answer},
            id=str(row.get("unique_id", "")),
        )

    return TaskSpec(
        "math500",
        example,
        math_answer,
        score,
        delimiters=(DELIMITER,),
        counts=counts,
        figures=FIGURES,
    )
