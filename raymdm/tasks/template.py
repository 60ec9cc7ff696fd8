"""Prompt and response templates: format strings over plain field names."""

import difflib
from collections.abc import Iterable, Mapping
from string import Formatter
from typing import Any

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
