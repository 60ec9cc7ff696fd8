"""`manifest.json`: what a prepared folder holds and how it was made."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from raymdm.errors import DataError

FORMAT = 1
NAME = "manifest.json"


class SplitManifest(BaseModel):
    """One split of a prepared folder. Lengths are in tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    """Name of the file in the folder."""
    rows: int
    """Rows in the file; 0 where there was nothing to put in."""
    dropped_too_long: int
    """Rows left out because they are longer than `max_length`, or their prompts than
    `prepare.max_prompt_length`; none is ever cut."""
    duplicates_dropped: int
    """Generated problems that came up again (a user's files are kept as they are)."""
    wrong_by_own_scorer: int
    """Test rows whose own response the task's scorer does not accept."""
    tokens: int
    """Tokens of all rows, prompts and EOS included."""
    median_row: int
    """Median length of a row."""
    longest_row: int
    """Length of the longest row."""
    longest_response: int
    """Length of the longest response, EOS included."""
    sha256: str
    """Hash of the file's content."""
    rows_with_delimiters: int = 0
    """Rows whose response has marked answer delimiters."""
    rows_with_syntax: int = 0
    """Rows whose prompt has marked syntax."""


class Manifest(BaseModel):
    """Everything that training and evaluation need to know about a prepared folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    """Version of this layout."""
    fingerprint: str
    """Changes with any setting or source file."""
    task: dict[str, Any]
    """The section `task` of the configuration."""
    prepare: dict[str, Any]
    """The section `prepare` of the configuration."""
    sources: dict[str, str]
    """What was read: a content hash for files, the name for the rest."""
    versions: dict[str, str]
    """Versions of the packages that shape the rows."""
    template: str
    """`chat` or `plain`: the template that was used for the prompts, and is for evaluation."""
    tokenizer: str
    """Folder of the tokenizer within the prepared folder."""
    vocabulary_size: int
    """Token ids are below this, added tokens included."""
    mask_token_id: int
    eos_token_id: int
    pad_token_id: int
    max_length: int
    """No row is longer than this."""
    splits: dict[str, SplitManifest]
    """`train`, `validation` and `test`."""


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into a folder."""
    text = json.dumps(manifest.model_dump(), indent=2, ensure_ascii=False)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of a prepared folder.

    Raises:
        DataError: no such folder, not a prepared one, or one of another version.
    """
    path = Path(folder) / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path}: not found ({error.strerror}); run `raymdm prepare`, or point data.folder at "
            "a prepared folder"
        ) from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); prepare the folder again") from error
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise DataError(f"{path}: format {version!r}, this raymdm reads {FORMAT}; prepare it again")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: {key}: {first['msg']}; prepare the folder again") from error


def check_marks(
    folder: str | Path,
    manifest: Manifest,
    *,
    delimiters: bool = False,
    syntax: bool = False,
    found: Collection[str] | None = None,
) -> None:
    """Check that some training row has the marks that an estimator needs.

    Args:
        folder: The prepared folder, for messages.
        manifest: Its manifest.
        delimiters: Whether answer delimiters have a mask rate of their own (ISAD).
        syntax: Whether the prompt's syntax may be masked (SyRM).
        found: The marks that some training row has, where they are not those of the manifest.

    Raises:
        DataError: no training row has them; says which key needs them.
    """
    train = manifest.splits["train"]
    if found is None:
        counts = {"delimiters": train.rows_with_delimiters, "syntax": train.rows_with_syntax}
        found = [mark for mark, count in counts.items() if count]
    if delimiters and "delimiters" not in found:
        raise DataError(
            "estimator.delimiters.rates other than same needs rows with marked delimiters; "
            f"data.folder {folder} has none: set task.delimiters and prepare again"
        )
    if syntax and "syntax" not in found:
        raise DataError(
            "estimator.eligible response_and_syntax needs rows with marked syntax; "
            f"data.folder {folder} has none: set task.syntax and prepare again"
        )
