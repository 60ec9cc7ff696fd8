from fractions import Fraction
from operator import add, mul, sub, truediv
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymdm.config.data import TaskSection
from raymdm.errors import ConfigurationError, DataError
from raymdm.tasks import PAGE_ROWS, get_task
from raymdm.tasks.arithmetic import ExpressionError, read_expression, solve

Tree = tuple[str, Fraction | None]


def joined(parts: tuple[Tree, str, Tree]) -> Tree:
    """Text and value of two expressions with an operator between; None divides by zero."""
    (first, a), operator, (second, b) = parts
    text = f"({first} {operator} {second})"
    if a is None or b is None or (operator == "/" and not b):
        return text, None
    return text, {"+": add, "-": sub, "*": mul, "/": truediv}[operator](a, b)


trees = st.recursive(
    st.integers(0, 99).map(lambda n: (str(n), Fraction(n))),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(joined),
    max_leaves=6,
)


@given(trees)
def test_expressions_have_their_exact_value(tree: Tree) -> None:
    text, value = tree
    if value is None:
        with pytest.raises(ExpressionError, match="division by zero"):
            read_expression(text)
    else:
        assert read_expression(text).value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 - 3 - 4", -5),
        ("24 / 4 / 2", 3),
        ("2 + 3 * 4", 14),
        ("-2 * -3", 6),
        ("-(2 - 5)", 3),
        ("2 - -3", 5),
        ("7 / 2 * 2", 7),
        ("[1 + 2] \N{MULTIPLICATION SIGN} 3", 9),
        (r"6 \div 4 \times 2", 3),
    ],
)
def test_operators_bind_as_usual(text: str, value: int) -> None:
    assert read_expression(text).value == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "()",
        "2 +",
        "2 3",
        "2 ** 3",
        "2 // 3",
        "(2",
        "2)",
        "2.5",
        "1e3",
        "x",
        "²",
        "2, 3",
        "9" * 10,
    ],
)
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        read_expression(text)


@pytest.mark.parametrize(
    "text", ["(" * 5000, "-" * 5000, "1+" * 5000 + "1", "(" * 90 + "1" + ")" * 90]
)
def test_long_and_deep_expressions_are_refused(text: str) -> None:
    with pytest.raises(ExpressionError, match=r"longer than|deeper than"):
        read_expression(text)


@pytest.mark.parametrize(
    ("numbers", "target"),
    [([30, 100, 93], 23), ([8, 3, 8, 3], 24), ([1, 2], -1), ([4, 4, 4, 4], 17)],
)
def test_the_search_finds_a_solution_where_there_is_one(numbers: list[int], target: int) -> None:
    found = solve(numbers, target)
    assert found is not None
    expression = read_expression(found)
    assert expression.value == target
    assert list(expression.numbers) == sorted(numbers)


def test_the_search_says_when_there_is_none() -> None:
    assert solve([1, 1], 3) is None
    assert solve([0, 0, 0], 1) is None


def test_both_formats_are_the_same_problem() -> None:
    task = get_task("countdown")
    one = task.example({"input": "30,100,93", "output": "23"})
    other = task.example({"nums": [30, 100, 93], "target": 23})
    assert one == other
    assert "30, 100, 93" in one.prompt
    assert "equals 23" in one.prompt
    assert task.score(one.response, one.reference) == 1.0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input": "30,100,93", "outputs": "23"}, "'output' is missing; did you mean 'outputs'"),
        ({"num": [1, 2], "target": 3}, "'nums' is missing; did you mean 'num'"),
        ({"nums": "1", "target": 3}, "'nums' must hold two or more whole numbers"),
        ({"nums": [1, 2.5], "target": 3}, "'nums' must hold whole numbers, found 2.5"),
        ({"nums": [1, True], "target": 3}, "'nums' must hold whole numbers, found True"),
        ({"input": "1,two", "output": "3"}, "'input' must hold whole numbers, found 'two'"),
        ({"nums": [1, 1], "target": 3}, "3 cannot be reached from 1, 1"),
        ({"nums": [1, 2, 3, 4, 5, 6], "target": 3}, "6 numbers: a solution is searched for up to"),
    ],
)
def test_bad_rows(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        get_task("countdown").example(row)


def test_no_solution_is_searched_for_where_the_template_has_none() -> None:
    section = TaskSection(name="countdown", response_template="{target}")
    row = {"nums": [1, 2, 3, 4, 5, 6], "target": 999999}
    assert get_task(section).example(row).response == "999999"


def test_generated_problems_are_solvable_within_their_options() -> None:
    options = {"numbers": [2, 4], "minimum": 3, "maximum": 9, "target_maximum": 30}
    task = get_task(TaskSection(name="countdown", options=options))
    assert task.generate is not None
    page = task.generate(0, 3)
    assert len(page) == PAGE_ROWS
    assert page == task.generate(0, 3)
    assert page != task.generate(0, 4) != task.generate(1, 3)
    assert {len(row["nums"]) for row in page} == {2, 3, 4}
    for row in page:
        assert all(3 <= number <= 9 for number in row["nums"])
        assert 1 <= row["target"] <= 30
        example = task.example(row)
        assert task.score(example.response, example.reference) == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"number": [3]}, "no option 'number'; did you mean 'numbers'"),
        ({"numbers": [6]}, "from 2 to 5 numbers"),
        ({"numbers": [4, 3]}, "the smaller one first"),
        ({"numbers": "3"}, "task.options.numbers: .*list"),
        ({"minimum": 9, "maximum": 3}, "a minimum is above its maximum"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        get_task(TaskSection(name="countdown", options=options))


def test_targets_that_never_come_up_end_with_a_message() -> None:
    options = {"numbers": [2], "minimum": 7, "maximum": 7, "target_minimum": 3, "target_maximum": 3}
    task = get_task(TaskSection(name="countdown", options=options))
    assert task.generate is not None
    with pytest.raises(ConfigurationError, match="no target from 3 to 3 came up"):
        task.generate(0, 0)
