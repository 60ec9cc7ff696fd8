"""A task's own options (`task.options`), checked like every other section."""

from typing import TypeVar

from pydantic import ValidationError

from raymdm.config.data import TaskSection
from raymdm.config.section import Section
from raymdm.errors import ConfigurationError
from raymdm.tasks.template import nearest

Options = TypeVar("Options", bound=Section)


class NoOptions(Section):
    """Of a task that has none."""


def read_options(section: TaskSection, kind: type[Options]) -> Options:
    """`section.options` as the task's own section.

    Raises:
        ConfigurationError: an unknown option (names the nearest), a wrong type or value.
    """
    known = kind.model_fields
    for option in section.options:
        if option not in known:
            has = f"it has: {', '.join(known)}" if known else "it has none"
            raise ConfigurationError(
                f"task.options: {section.name} has no option {option!r}"
                f"{nearest(option, known)}; {has}"
            )
    try:
        return kind.model_validate(section.options)
    except ValidationError as error:
        problems = (
            f"{'.'.join(('task.options', *map(str, item['loc'])))}: "
            f"{item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        )
        raise ConfigurationError("; ".join(problems)) from error
