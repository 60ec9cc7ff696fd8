"""The registry: names of tasks and the functions that make them."""

from collections.abc import Callable
from dataclasses import replace

from raymdm.config.data import TaskSection, check_pattern
from raymdm.errors import ConfigurationError
from raymdm.tasks import countdown, gsm8k, hitab, math500, openscience, reasoning, sudoku
from raymdm.tasks.spec import TaskSpec
from raymdm.tasks.template import nearest

MakeTask = Callable[[TaskSection], TaskSpec]

_MAKERS: dict[str, MakeTask] = {
    "countdown": countdown.make,
    "gsm8k": gsm8k.make,
    "hitab": hitab.make,
    "math500": math500.make,
    "openscience": openscience.make,
    "reasoning_gym": reasoning.make,
    "sudoku": sudoku.make,
}


def register_task(name: str, make: MakeTask) -> None:
    """Add a task, or replace one of that name.

    Args:
        name: What `task.name` says; `name:anything` reaches the same function, which can read
            the rest from `section.name`.
        make: Called with the configuration section `task`; returns the task.

    Raises:
        ConfigurationError: an empty name, or one with a colon.
    """
    if not name or ":" in name:
        raise ConfigurationError(f"task name {name!r}: must not be empty nor contain ':'")
    _MAKERS[name] = make


def get_task(task: str | TaskSection) -> TaskSpec:
    """The task of that name, or as the configuration section describes it.

    The section's delimiters and syntax, where it gives any, replace the task's own.

    Raises:
        ConfigurationError: an unknown task (names the nearest one), a broken template or pattern,
            or options that the task does not know.
    """
    section = TaskSection(name=task) if isinstance(task, str) else task
    family = section.name.partition(":")[0]
    make = _MAKERS.get(family)
    if make is None:
        raise ConfigurationError(
            f"task.name: unknown task {section.name!r}{nearest(family, _MAKERS)}; known: "
            f"{', '.join(sorted(_MAKERS))} (your own module is registered with --import)"
        )
    made = make(section)
    if section.delimiters is not None:
        made = replace(made, delimiters=tuple(section.delimiters))
    if section.syntax is not None:
        made = replace(made, syntax=tuple(section.syntax))
    try:
        for pattern in (*made.delimiters, *made.syntax):
            check_pattern(pattern)
    except ValueError as error:
        raise ConfigurationError(f"task {section.name}: {error}") from error
    return made
