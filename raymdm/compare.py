"""`raymdm compare runs/sweep`: is the difference between the arms real, or seed noise?

Reads a sweep directory, several run directories or a CSV table (`--table scores.csv`), prints a
table and the verdicts in words, and writes `report.html`, `report.md` and `summary.json`. Needs no
cluster.
"""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from raymdm.command import Verbose, reports_errors, run_as_program
from raymdm.errors import ConfigurationError, DataError
from raymdm.verdict import Results, Summary, read_runs, read_sweep, summarise
from raymdm.verdict.markdown import render_markdown
from raymdm.verdict.pages import write_whole
from raymdm.verdict.report import render_report
from raymdm.verdict.run_files import existing_folder
from raymdm.verdict.score_table import read_table
from raymdm.verdict.tables import print_summary


@reports_errors
def main(
    target: Annotated[
        list[str] | None,
        typer.Argument(help="A sweep directory, or several run directories.", show_default=False),
    ] = None,
    table: Annotated[
        str | None,
        typer.Option(metavar="FILE.csv", help="Scores made elsewhere: arm, seed, score[, item]."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Arm to compare with; default: the sweep's, or the first.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Primary metric, `accuracy` or `nelbo`; default: the sweep's. "
            "With --table: the score's column."
        ),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Differences below this do not matter.")
    ] = None,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="With --table: small scores win.")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="For the report; default: the sweep directory, or here."),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Say which differences between arms are real and which are seed noise."""
    results, folder = _read(target or [], table, metric, lower_is_better)
    summary = summarise(results, baseline, metric, margin)
    publish(summary, Path(output) if output else folder, wide_console())


def compare_sweep(
    path: str | Path,
    baseline: str | None = None,
    metric: str | None = None,
    margin: float | None = None,
    output: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Judge a sweep, print the verdicts, write the report; returns the content of `summary.json`.

    Raises:
        UserError: the directory is not a sweep's, or the baseline, metric or margin is wrong.
    """
    summary = summarise(read_sweep(path), baseline, metric, margin)
    return publish(summary, Path(output or path), console or wide_console())


def publish(summary: Summary, folder: Path, console: Console) -> dict[str, Any]:
    """Print the summary, write `report.html`, `report.md` and `summary.json`; returns what is in
    the last one.
    """
    content = summary.to_dict()
    page, text = render_report(summary), render_markdown(summary)
    print_summary(summary, console)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [
            write_whole(folder / "report.html", page),
            write_whole(folder / "report.md", text),
            write_whole(folder / "summary.json", json.dumps(content, indent=2, allow_nan=False)),
        ]
    except OSError as error:
        raise DataError(f"cannot write the report to {folder}: {error.strerror}") from error
    console.print()
    for file in written:
        console.print(str(file), soft_wrap=True, highlight=False, markup=False)
    return content


def _read(
    target: list[str], table: str | None, metric: str | None, lower_is_better: bool
) -> tuple[Results, Path]:
    """The runs that the arguments name, and the folder that the report goes to by default."""
    if bool(target) == bool(table):
        raise ConfigurationError(
            "give one of: a sweep directory, several run directories, --table FILE.csv"
        )
    if table:
        return read_table(table, metric or "score", not lower_is_better), Path()
    if lower_is_better:
        raise ConfigurationError(
            "--lower-is-better is for --table; a run's metrics know their side"
        )
    folders = [existing_folder(name) for name in target]
    sweeps = [folder for folder in folders if (folder / "sweep.json").is_file()]
    if len(folders) == 1 and (sweeps or not (folders[0] / "status.json").is_file()):
        return read_sweep(folders[0]), folders[0]
    if sweeps:
        raise ConfigurationError(f"{sweeps[0]} is a sweep: compare one sweep at a time")
    return read_runs(folders), Path()


def wide_console() -> Console:
    """The terminal; a log file gets lines wide enough for the table."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 120
    return console


if __name__ == "__main__":
    run_as_program(main)
