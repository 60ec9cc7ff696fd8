"""What `raymdm prepare` shows on the terminal."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from raymdm.data.pipeline import Progress
from raymdm.data.schema import MARKS


@contextmanager
def progress_line() -> Iterator[Progress]:
    """A line on the terminal that counts rows, once they take more than two seconds."""
    console = Console(stderr=True)
    status = console.status("reading")
    start, done, shown = time.monotonic(), 0, False

    def advance(rows: int) -> None:
        nonlocal done, shown
        done += rows
        if not shown and console.is_terminal and time.monotonic() - start > 2:
            status.start()
            shown = True
        status.update(f"{done:,} rows read")

    try:
        yield advance
    finally:
        status.stop()


def show(manifest: dict[str, Any], folder: str, response_length: int | None) -> None:
    """Print what was prepared, and what to look at before training.

    Args:
        manifest: The manifest of the folder.
        folder: Its name.
        response_length: Tokens that evaluation will decode; None where it decides by itself.
    """
    console = Console()
    table = Table(title=folder, title_justify="left", box=None)
    table.add_column("split")
    columns = {
        "rows": "rows",
        "too long": "dropped_too_long",
        "duplicates": "duplicates_dropped",
        "tokens": "tokens",
        "median": "median_row",
        "longest": "longest_row",
        "longest response": "longest_response",
    }
    for column in columns:
        table.add_column(column, justify="right")
    for name, split in manifest["splits"].items():
        table.add_row(name, *(f"{split[key]:,}" for key in columns.values()))
    console.print(table)
    console.print(
        f"vocabulary {manifest['vocabulary_size']:,}, {manifest['template']} template", style="dim"
    )
    for mark in MARKS:
        counts = [
            f"{split[f'rows_with_{mark}']:,} of {split['rows']:,} {name}"
            for name, split in manifest["splits"].items()
            if split[f"rows_with_{mark}"]
        ]
        if counts:
            console.print(f"rows with {mark}: {', '.join(counts)}", style="dim", soft_wrap=True)
    test = manifest["splits"]["test"]
    if test["wrong_by_own_scorer"]:
        console.print(
            f"note: {test['wrong_by_own_scorer']} of {test['rows']} test rows have a response that "
            "the task's own scorer does not take for right",
            soft_wrap=True,
        )
    if response_length is not None and test["longest_response"] > response_length:
        console.print(
            f"note: the longest test response has {test['longest_response']} tokens, "
            f"evaluation.decoding.response_length is {response_length}: none longer is decoded",
            soft_wrap=True,
        )
