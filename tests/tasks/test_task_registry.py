import subprocess
import sys
from typing import Any

import pytest

from raymdm.config.data import TaskSection
from raymdm.errors import ConfigurationError, DataError
from raymdm.tasks import PAGE_ROWS, Example, TaskSpec, get_task, register_task
from raymdm.tasks.reasoning import extract
from raymdm.tasks.registry import _MAKERS
from raymdm.tasks.template import check_template, fill_template

ADDITION: dict[str, Any] = {
    "name": "reasoning_gym:basic_arithmetic",
    "prompt_template": "{expression}=",
    "options": {"min_terms": 2, "max_terms": 2, "operators": ["+"], "allow_parentheses": False},
}
ROW = {"question": "How many?", "answer": "6*7=<<6*7=42>>42\n#### 42"}


def test_gsm8k_example_is_verbatim() -> None:
    example = get_task("gsm8k").example(ROW)
    assert example.prompt == "How many?\n"
    assert example.response == ROW["answer"]
    assert example.reference == ROW


@pytest.mark.parametrize(
    ("text", "score"), [(ROW["answer"], 1.0), ("42.0", 1.0), ("#### 43", 0.0), ("", 0.0)]
)
def test_gsm8k_score(text: str, score: float) -> None:
    assert get_task("gsm8k").score(text, ROW) == score


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "?", "anwser": "1"}, "did you mean 'anwser'.*fields found: question, anwser"),
        ({"answer": "#### 4"}, "'question'.*missing.*fields found: answer"),
        ({"question": "?", "answer": "4"}, "does not end with '#### <number>'"),
        ({"question": "?", "answer": "#### four"}, "does not end with '#### <number>'"),
    ],
)
def test_gsm8k_bad_row(row: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        get_task("gsm8k").example(row)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "gsm8"}, "unknown task 'gsm8'; did you mean 'gsm8k'"),
        ({"name": "reasoning_gym:chain_sun"}, "no task 'chain_sun'; did you mean 'chain_sum'"),
        ({"name": "gsm8k", "options": {"level": 1}}, "no options, given level"),
        (ADDITION | {"options": {"min_term": 2}}, "no option 'min_term'; did you mean 'min_terms'"),
        (ADDITION | {"options": {"seed": 2}}, "no option 'seed'"),
        (ADDITION | {"options": {"min_terms": 0}}, "min_terms must be positive"),
        (ADDITION | {"prompt_template": "{expression"}, "task.prompt_template"),
        (ADDITION | {"response_template": "{a.b}"}, "task.response_template.*plain name"),
    ],
)
def test_bad_settings(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        get_task(TaskSection(**section))


def test_generated_task() -> None:
    task = get_task(TaskSection(**ADDITION))
    assert task.generate is not None
    page = task.generate(0, 3)
    assert len(page) == PAGE_ROWS
    assert page == task.generate(0, 3)
    assert page != task.generate(1, 3)
    for row in page[:20]:
        example = task.example(row)
        assert example.prompt == row["metadata"]["expression"] + "="
        assert task.score(f" {example.response}\n", example.reference) == 1.0
        assert task.score(example.response + "1", example.reference) == 0.0
        assert task.score("", example.reference) == 0.0


def test_part_marks_are_wrong() -> None:
    task = get_task("reasoning_gym:chain_sum")
    assert task.generate is not None
    reference = task.example(task.generate(0, 0)[0]).reference
    assert task.score(f"the answer is {reference['answer']}", reference) == 0.0
    assert task.score(f"<answer> {reference['answer']} </answer>", reference) == 1.0


def test_extract() -> None:
    assert extract("<answer>1</answer> no, <answer>\n2 </answer>") == "2"
    assert extract(" plain ") == "plain"
    assert extract("  ") is None


def test_own_task() -> None:
    def make(section: TaskSection) -> TaskSpec:
        suffix = section.name.partition(":")[2]
        return TaskSpec(
            section.name,
            lambda row: Example(row["text"], row["text"] + suffix),
            lambda text: text,
            lambda text, reference: 1.0,
        )

    register_task("mine", make)
    try:
        assert get_task("mine:!").example({"text": "hey"}).response == "hey!"
    finally:
        del _MAKERS["mine"]
    with pytest.raises(ConfigurationError, match="must not be empty"):
        register_task("a:b", make)


@pytest.mark.parametrize("template", ["{a.b}", "{a[0]}", "{}", "{0}", "{a:{b}}", "{a", "a}"])
def test_templates_reach_no_objects(template: str) -> None:
    with pytest.raises(ConfigurationError, match="key"):
        check_template(template, "key")


def test_template_fields() -> None:
    fields = {"numbers": ["3", "1"], "a": 7}
    assert fill_template("{{{numbers}}} {a:03d}\n", fields, "key") == "{3, 1} 007\n"
    with pytest.raises(DataError, match=r"'number'.*did you mean 'numbers'"):
        fill_template("{number}", fields, "key")
    with pytest.raises(DataError, match="does not fit"):
        fill_template("{numbers:d}", fields, "key")


def test_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from raymdm.tasks import get_task; get_task('reasoning_gym:chain_sum');"
        "sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["countdown", "string_insertion", "simple_integration"])
def test_scorers_that_run_a_response_as_code_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="a model's output must not be run"):
        get_task(f"reasoning_gym:{name}")
