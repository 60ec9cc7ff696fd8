"""Delimiters and syntax: the task's own, the section's over them, and those that are shipped."""

import keyword
import re

import pytest

from raymdm.config import load_config
from raymdm.config.data import TaskSection
from raymdm.errors import ConfigurationError
from raymdm.tasks import Example, TaskSpec, get_task, register_task
from raymdm.tasks.registry import _MAKERS


def patterns(task: TaskSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return task.delimiters, task.syntax


def found(expressions: list[str] | None, text: str) -> list[str]:
    return [match[0] for one in expressions or () for match in re.finditer(one, text)]


def test_the_sections_patterns_replace_the_tasks_own() -> None:
    assert patterns(get_task("gsm8k")) == (("####",), ())
    assert patterns(get_task("reasoning_gym:chain_sum")) == ((), ())
    section = TaskSection(name="gsm8k", syntax=["x"])
    assert patterns(get_task(section)) == (("####",), ("x",))
    section = TaskSection(name="gsm8k", delimiters=["a", "b"])
    assert patterns(get_task(section)) == (("a", "b"), ())
    section = TaskSection(name="gsm8k", delimiters=[])
    assert patterns(get_task(section)) == ((), ())


def make(section: TaskSection) -> TaskSpec:
    return TaskSpec(
        section.name,
        lambda row: Example(row["text"], row["text"]),
        lambda text: text,
        lambda text, reference: 1.0,
        syntax=("{", "}") if section.name == "mine" else ("(",),
    )


def test_a_registered_task_has_patterns_like_any_other() -> None:
    register_task("mine", make)
    try:
        assert patterns(get_task("mine")) == ((), ("{", "}"))
        section = TaskSection(name="mine", delimiters=["d"], syntax=["s"])
        assert patterns(get_task(section)) == (("d",), ("s",))
        with pytest.raises(ConfigurationError, match=r"task mine:x: '\(' is not a regular expr"):
            get_task("mine:x")
    finally:
        del _MAKERS["mine"]


@pytest.mark.parametrize("key", ["delimiters", "syntax"])
@pytest.mark.parametrize("pattern", ["(a", "[", "*", "a{99999999999}"])
def test_a_pattern_that_does_not_compile_gives_one_clear_line(key: str, pattern: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_config([], [f"task.{key}=['fine', '{pattern}']"])
    message = str(caught.value)
    assert f"task.{key}: '{pattern}' is not a regular expression (" in message
    assert "\n" not in message


def test_the_shipped_delimiters() -> None:
    assert load_config(["tasks/gsm8k"]).task.delimiters == list(get_task("gsm8k").delimiters)
    section = load_config(["tasks/gsm8k", "tasks/boxed"]).task
    assert section.name == "gsm8k"
    assert found(section.delimiters, r"so \boxed{\frac{1}{2}}, boxed{3}") == [r"\boxed{"]


def test_the_shipped_html_tags() -> None:
    section = load_config(["tasks/gsm8k", "tasks/html_tables"]).task
    assert section.delimiters == ["####"]
    text = '<TABLE><tr class="a">\n<td\nid=1>x < y</td></tr><theme><b>'
    assert found(section.syntax, text) == [
        "<TABLE>",
        '<tr class="a">',
        "<td\nid=1>",
        "</td>",
        "</tr>",
    ]


def test_the_shipped_keywords_are_those_of_python() -> None:
    syntax = load_config(["tasks/code"]).task.syntax
    assert sorted(found(syntax, " ".join(keyword.kwlist))) == sorted(keyword.kwlist)
    assert found(syntax, "definite iffy Class x_in") == []
