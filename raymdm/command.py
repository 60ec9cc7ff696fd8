"""What every verb shares: its options, its errors as one line, `python -m raymdm.VERB`."""

import functools
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from raymdm.config import Config, dump_yaml, merge_overlay, read_config
from raymdm.config.loading import validate
from raymdm.config.paths import with_absolute_paths, without_keys
from raymdm.errors import ConfigurationError, RaymdmError

Function = TypeVar("Function", bound=Callable[..., Any])

ConfigFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="YAML file, yours or a shipped one such as `estimators/ppots`; repeat to merge "
        "left to right.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key, e.g. `training.steps=100`."),
]
Imports = Annotated[
    list[str] | None,
    typer.Option("--import", metavar="MODULE", help="Your own module to import first (tasks)."),
]
DumpConfig = Annotated[
    bool, typer.Option("--dump-config", help="Print the merged configuration and exit.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Show Ray's, DeepSpeed's and our own logs; stack traces.")
]


def settings(
    files: list[str] | None,
    overrides: list[str] | None,
    imports: list[str] | None = None,
    dump_config: bool = False,
    base: dict[str, Any] | None = None,
) -> Config:
    """The configuration a verb runs with; prints it and exits under `--dump-config`.

    `base` lies under the given files (a run directory's own configuration, for example).
    """
    given = merge_overlay(base or {}, read_config(files or [], overrides or []))
    given["imports"] = [*given.get("imports", []), *(imports or [])]
    config = validate(given)
    if dump_config:
        typer.echo(dump_yaml(config), nl=False)
        raise typer.Exit
    import_modules(config.imports)
    return with_absolute_paths(config)


def check_place(option: str, file: Path | None) -> None:
    """Raises ConfigurationError, before the work, where its result could not be written."""
    if file is not None and not file.absolute().parent.is_dir():
        raise ConfigurationError(f"{option} {file}: there is no folder {file.absolute().parent}")


def module_paths() -> tuple[str, ...]:
    """Where modules are imported from here, for `add_module_paths` in another process."""
    return tuple(dict.fromkeys(os.path.abspath(path) for path in sys.path))


def add_module_paths(paths: Iterable[str]) -> None:
    """Import from these places too, after those that are known: the user's modules among them."""
    sys.path += [path for path in paths if path not in sys.path]


def import_modules(names: list[str]) -> None:
    """Import the user's modules, which may register tasks. Raises ConfigurationError."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise ConfigurationError(
                f"--import {name}: {type(error).__name__}: {error}; is it on PYTHONPATH?"
            ) from error


def reports_errors(function: Function) -> Function:
    """Turn a `RaymdmError` into one line on stderr and its exit status (2: yours, 1: ours)."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        quiet(verbose=kwargs.get("verbose", False))
        try:
            return function(*args, **kwargs)
        except RaymdmError as error:
            if kwargs.get("verbose"):
                raise
            typer.secho(f"error: {without_keys(str(error))}", fg="red", err=True)
            raise typer.Exit(error.exit_status) from error
        except KeyboardInterrupt:
            typer.secho("interrupted", fg="red", err=True)
            raise typer.Exit(130) from None

    return wrapped  # type: ignore[return-value]


def quiet(verbose: bool) -> None:
    """Set the log level for this process and, through the environment, for its workers."""
    level = logging.INFO if verbose else logging.ERROR
    logging.basicConfig(level=level, force=True)
    if verbose:
        return
    warnings.simplefilter("ignore")
    for name, value in {
        "DS_LOG_LEVEL": "error",
        "TRANSFORMERS_VERBOSITY": "error",
        "RAY_AIR_NEW_OUTPUT": "0",
    }.items():
        os.environ.setdefault(name, value)


def run_as_program(function: Callable[..., Any]) -> None:
    """Entry point of `python -m raymdm.VERB`."""
    application = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
    )
    application.command()(function)
    application()
