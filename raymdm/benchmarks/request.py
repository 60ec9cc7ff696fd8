"""What the command line asks of a measurement, and what it gets back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from raymdm.command import settings
from raymdm.config import Config


@dataclass(frozen=True)
class Request:
    """What was asked.

    Attributes:
        files: of `--config`.
        overrides: of `--set`.
        folder: an empty one, removed afterwards.
        blocks: timed blocks of each side; None for the measurement's own number.
        verbose: show Ray's logs.
    """

    files: list[str] | None
    overrides: list[str] | None
    folder: Path
    blocks: int | None = None
    verbose: bool = False

    def settings(self, base: dict[str, Any]) -> Config:
        """The configuration, on top of the measurement's own."""
        return settings(self.files, self.overrides, base=base)


@dataclass(frozen=True)
class Report:
    """What was found: tables for the terminal, and the same figures for `--json`."""

    tables: list[Table]
    figures: dict[str, Any]
