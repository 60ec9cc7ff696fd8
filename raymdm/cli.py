"""raymdm: the command line. Each verb is a module: `python -m raymdm.VERB` is the same."""

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command_from_info
from typer.models import CommandInfo

from raymdm import __version__

# In the order of a user's path; the text is the one line of `raymdm --help`.
VERBS = {
    "prepare": "Turn raw rows into tokenized JSONL, a manifest and a tokenizer.",
    "train": "Train one model with Ray Train workers running DeepSpeed.",
    "rl": "Train from verified rewards of rollouts (MDPO), or list what over-denoises.",
    "variance": "Where does the training noise come from, and what would reduce it?",
    "generate": "Write responses to prompts, or fill in masks, and watch it.",
    "evaluate": "Score a model, or responses made elsewhere: a task's metric and the NELBO.",
    "export": "Write a run's model as a Hugging Face folder with its card.",
    "sweep": "Train every arm with every seed, then compare them.",
    "compare": "Is a difference real, or seed noise? Read a sweep and say.",
    "doctor": "Look at this machine, and at the memory that a run would need.",
    "bench": "Measure raymdm itself: overhead, speed, memory, variance of its estimators.",
}


class _Verbs(TyperGroup):
    """Imports a verb only when it runs: `raymdm --help` does not wait for torch or Ray."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The verb's name and one line, for the list of verbs."""
        return TyperCommand(cmd_name, help=VERBS[cmd_name]) if cmd_name in VERBS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb itself, to be run."""
        if args[0] not in VERBS:
            return super().resolve_command(ctx, args)
        module = importlib.import_module(f"raymdm.{args[0]}")
        command = get_command_from_info(
            CommandInfo(name=args[0], callback=module.main),
            pretty_exceptions_short=False,
            rich_markup_mode="markdown",
        )
        return args[0], command, args[1:]


app = typer.Typer(
    cls=_Verbs,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train masked diffusion language models on Ray, and know whether a difference is real or "
    "seed noise.  A first run: raymdm prepare, then sweep, then compare; see VERB --help.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"raymdm {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before the verb."""


def main() -> None:
    """Entry point of the `raymdm` command."""
    app()


if __name__ == "__main__":
    main()
