"""Prompt and response templates: format strings over plain field names."""

import difflib
from collections.abc import Iterable, Mapping
from string import Formatter
from typing import Any

from raymdm.config.data import TaskSection
from raymdm.errors import ConfigurationError, DataError


def check_template(template: str, key: str) -> list[str]:
    """The field names of a template.

    Only plain names are allowed: `{a.b}` and `{a[0]}` would let a template reach into objects.

    Args:
        template: A format string such as `"{question}\\n"`.
        key: The configuration key it stands under, for messages.

    Raises:
        ConfigurationError: unbalanced braces, or a field that is not a plain name.
    """
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise ConfigurationError(
            f"{key}: {error} in {template!r}; write {{{{ and }}}} for braces that are text"
        ) from error
    names = []
    for _, name, specification, _ in parts:
        if name is None:
            continue
        if not name.isidentifier() or "{" in (specification or ""):
            raise ConfigurationError(
                f"{key}: field {{{name}}} in {template!r} is not a plain name; "
                "use {name} of a field of the row"
            )
        names.append(name)
    return names


def fill_template(template: str, fields: Mapping[str, Any], key: str) -> str:
    """The template with the row's fields in place; a list is written as `a, b, c`.

    Raises:
        DataError: the row has no such field; names the nearest one.
    """
    values: dict[str, Any] = {}
    for name in check_template(template, key):
        if name not in fields:
            raise DataError(
                f"field {name!r} (of {key} {template!r}) is missing{nearest(name, fields)}; "
                f"fields found: {', '.join(map(str, fields)) or 'none'}"
            )
        value = fields[name]
        is_list = isinstance(value, list | tuple)
        values[name] = ", ".join(map(str, value)) if is_list else value
    try:
        return template.format(**values)
    except (ValueError, TypeError) as error:
        raise DataError(f"{key} {template!r} does not fit the row: {error}") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?` for a misspelt name, or nothing."""
    close = difflib.get_close_matches(name, [str(k) for k in known], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def text_field(row: Mapping[str, Any], name: str) -> str:
    """A field of a row that must be a text.

    Raises:
        DataError: it is missing (names the nearest one), of another type, or empty.
    """
    if name not in row:
        raise DataError(
            f"field {name!r} is missing{nearest(name, row)}; "
            f"fields found: {', '.join(map(str, row)) or 'none'}"
        )
    value = row[name]
    if not isinstance(value, str):
        raise DataError(f"field {name!r} must be a text, found {type(value).__name__} {value!r}")
    if not value.strip():
        raise DataError(f"field {name!r} is empty")
    return value


def templates(section: TaskSection, prompt: str, response: str) -> tuple[str, str]:
    """The prompt's and the response's template: the section's own, else those given here.

    Raises:
        ConfigurationError: a broken template.
    """
    prompt = prompt if section.prompt_template is None else section.prompt_template
    response = response if section.response_template is None else section.response_template
    check_template(prompt, "task.prompt_template")
    check_template(response, "task.response_template")
    return prompt, response
