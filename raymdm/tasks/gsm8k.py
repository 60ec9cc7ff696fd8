"""GSM8K: grade-school word problems. Fields `question` and `answer`, which ends in `#### N`."""

from collections.abc import Mapping
from typing import Any

from raymdm.config.data import TaskSection
from raymdm.errors import ConfigurationError, DataError
from raymdm.tasks.numbers import final_number
from raymdm.tasks.spec import Example, TaskSpec
from raymdm.tasks.template import check_template, fill_template

PROMPT = "{question}\n"
RESPONSE = "{answer}"
DELIMITER = "####"


def make(section: TaskSection) -> TaskSpec:
    """The task. The response is the answer exactly as in the file, calculator marks included.

    Raises:
        ConfigurationError: options (it has none) or a broken template.
    """
    if section.options:
        raise ConfigurationError(
            f"task.options: gsm8k has no options, given {', '.join(section.options)}"
        )
    prompt = PROMPT if section.prompt_template is None else section.prompt_template
    response = RESPONSE if section.response_template is None else section.response_template
    check_template(prompt, "task.prompt_template")
    check_template(response, "task.response_template")

    def example(row: Mapping[str, Any]) -> Example:
        answer = fill_template("{answer}", row, "the task gsm8k")
        if DELIMITER not in answer or final_number(answer) is None:
            raise DataError("field 'answer' does not end with '#### <number>'")
        return Example(
            prompt=fill_template(prompt, row, "task.prompt_template"),
            response=fill_template(response, row, "task.response_template"),
            reference={"question": row.get("question", ""), "answer": answer},
        )

    return TaskSpec("gsm8k", example, final_number, score, delimiters=(DELIMITER,))


def score(text: str, reference: Mapping[str, Any]) -> float:
    """1.0 where the response's final number is that of the reference answer."""
    gold = final_number(str(reference["answer"]))
    return float(gold is not None and final_number(text) == gold)
