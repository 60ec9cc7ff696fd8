"""math500 and openscience: what a row becomes, and how it is scored."""

from typing import Any

import pytest

from raymdm.config import load_config
from raymdm.config.data import TaskSection
from raymdm.errors import ConfigurationError, DataError
from raymdm.tasks import get_task

PROBLEM = {"problem": "1+1?", "solution": r"It is $\boxed{2}$.", "answer": "2"}
QUESTION = {"input": "Which? (A) x (B) y", "output": r"Hence \boxed{\text{B}}"}


def test_a_problem() -> None:
    task = get_task("math500")
    example = task.example({**PROBLEM, "unique_id": "test/1.json"})
    assert example.prompt == "1+1?\nPut the final answer in \\boxed{}.\n"
    assert example.response == PROBLEM["solution"]
    assert example.reference == {"answer": "2"}
    assert example.id == "test/1.json"
    assert task.extract(example.response) == "2"
    for text, score in ((r"\boxed{\frac{4}{2}}", 1.0), (r"\boxed{3}", 0.0), ("2", 0.0), ("", 0.0)):
        assert task.score(text, example.reference) == score


def test_rows_of_math_itself_have_no_answer_of_their_own() -> None:
    row = {name: PROBLEM[name] for name in ("problem", "solution")}
    assert get_task("math500").example(row).reference == {"answer": "2"}


def test_a_problem_of_openr1_needs_no_solution_and_asks_as_math500_does() -> None:
    config = load_config(["tasks/openr1_math"])
    task = get_task(config.task)
    row = {"problem": "1+1?", "solution": None, "answer": r"\frac{4}{2}", "uuid": "x"}
    example = task.example(row)
    assert example.prompt == get_task("math500").example(PROBLEM).prompt
    assert (example.response, example.reference) == (
        r"\boxed{\frac{4}{2}}",
        {"answer": row["answer"]},
    )
    assert task.score(example.response, example.reference) == 1.0
    assert task.score(r"\boxed{2}", example.reference) == 1.0
    with pytest.raises(DataError, match="'solution' must be a text, found NoneType"):
        get_task("math500").example(row)
    assert config.prepare.train_references


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "?", "solution": "1"}, "'problem' is missing; fields found: question"),
        ({**PROBLEM, "answer": 2}, "'answer' must be a text, found int 2"),
        ({**PROBLEM, "solution": ""}, "'solution' is empty"),
        ({"problem": "?", "solution": "two"}, "'answer' is missing, and .* no .boxed answer"),
    ],
)
def test_bad_problems(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        get_task("math500").example(row)


def test_a_question_with_choices() -> None:
    task = get_task("openscience")
    example = task.example(QUESTION)
    assert (example.prompt, example.response) == ("Which? (A) x (B) y\n", QUESTION["output"])
    assert example.reference == {"answer": r"\text{B}"}
    for text, score in ((r"\boxed{(B) y}", 1.0), (r"\boxed{b}", 1.0), (r"\boxed{A}", 0.0)):
        assert task.score(text, example.reference) == score
    # `B` is no formula: what would math-verify make of `y`?
    assert task.score(r"\boxed{y}", example.reference) == 0.0
    assert task.counts is not None
    assert task.counts(r"\boxed{A}", example.reference)["checks"] == 0


def test_a_question_with_a_formula() -> None:
    task = get_task("openscience")
    row = {"input": "?", "output": r"\boxed{0.25}", "expected_answer": r"\frac{1}{4}"}
    example = task.example(row)
    assert example.reference == {"answer": r"\frac{1}{4}"}
    assert task.score(example.response, example.reference) == 1.0
    assert task.score(r"\boxed{0.3}", example.reference) == 0.0


def test_a_row_without_an_answer_can_be_trained_on_and_is_never_right() -> None:
    task = get_task("openscience")
    example = task.example({"input": "?", "output": "I think so.", "expected_answer": None})
    assert example.response == "I think so."
    assert task.score(example.response, example.reference) == 0.0
    assert task.counts is not None
    assert task.counts(r"\boxed{1}", example.reference)["checks"] == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"inputs": "?", "output": "!"}, "'input' is missing; did you mean 'inputs'"),
        ({"input": "?", "output": None}, "'output' must be a text, found NoneType"),
        ({**QUESTION, "expected_answer": 4}, "'expected_answer' must be a text, found int 4"),
    ],
)
def test_bad_questions(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        get_task("openscience").example(row)


@pytest.mark.parametrize("name", ["math500", "openscience"])
def test_they_have_no_options(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} has no option 'level'; it has none"):
        get_task(TaskSection(name=name, options={"level": 1}))


@pytest.mark.parametrize("name", ["math500", "countdown", "sudoku", "hitab", "openscience"])
def test_shipped_files_say_what_the_task_says(name: str) -> None:
    section = load_config([f"tasks/{name}"]).task
    assert section.name == name
    own = get_task(TaskSection(name=name))
    assert section.delimiters == list(own.delimiters)
    assert section.syntax == (list(own.syntax) or None)
    get_task(section)


@pytest.mark.parametrize("name", ["countdown", "sudoku"])
def test_shipped_lengths_hold_what_is_generated(name: str) -> None:
    """In characters, and a token has at least one."""
    config = load_config([f"tasks/{name}"])
    task = get_task(config.task)
    assert task.generate is not None
    examples = [task.example(row) for row in task.generate(0, 0)]
    longest = max(len(example.response) for example in examples)
    assert longest + 1 <= (config.evaluation.decoding.response_length or 0)
