"""Files of rows on a local path or in any store that pyarrow knows (`s3://…`, `gs://…`)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from raymdm.errors import DataError

Kind = Literal["jsonl", "gzip", "parquet"]
_ENDINGS: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".jsonl.gz": "gzip",
    ".parquet": "parquet",
}
_WILDCARDS = "*["


@dataclass(frozen=True)
class DataFile:
    """A file of rows.

    Attributes:
        path: absolute, or a URI.
        kind: what is in it, by the ending of its name.
        size: bytes.
        modified: nanoseconds since 1970; 0 where the store does not say.
    """

    path: str
    kind: Kind
    size: int
    modified: int


def find_files(patterns: Sequence[str]) -> list[DataFile]:
    """The files of some paths, those of each pattern sorted by name.

    Args:
        patterns: Paths or URIs, in which `*` stands for any part of a name within one folder and
            `[…]` for one of some characters.

    Raises:
        DataError: nothing there, a folder, an ending that is not known, or a store that does not
            answer; names the pattern.
    """
    return [file for pattern in patterns for file in _matches(pattern)]


def open_file(path: str) -> Any:
    """The file as a pyarrow stream of bytes that can be entered anywhere.

    Raises:
        DataError: it cannot be opened.
    """
    try:
        store, inside = _store(path)
        return store.open_input_file(inside)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def unreadable(path: str, error: Exception) -> DataError:
    """The one line for a file that is missing, broken or cut short."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return DataError(
        f"{path}: cannot be read ({reason}); restore the file, or prepare the data again"
    )


def _matches(pattern: str) -> list[DataFile]:
    try:
        infos = _infos(pattern)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(pattern, error) from error
    if not infos:
        raise DataError(
            f"{pattern}: there is no such file; run `raymdm prepare`, or mend data.folder or "
            "data.sources"
        )
    return [_described(path, info) for path, info in infos]


def _infos(pattern: str) -> list[tuple[str, Any]]:
    """Path and pyarrow's `FileInfo` of every file that a pattern names."""
    address, mark, options = pattern.partition("?") if "://" in pattern else (pattern, "", "")
    first = min((at for at in map(address.find, _WILDCARDS) if at >= 0), default=None)
    if first is None or os.path.exists(pattern):
        store, inside = _store(pattern)
        info = store.get_file_info(inside)
        return [] if info.type == FileType.NotFound else [(_absolute(pattern), info)]
    folder, rest = address[:first].rpartition("/")[0] or ".", address[:first].rpartition("/")[2]
    rest += address[first:]
    store, inside = _store(folder + mark + options)
    if store.get_file_info(inside).type != FileType.Directory:
        return []
    found = store.get_file_info(FileSelector(inside, recursive="/" in rest))
    wanted = f"/{inside.strip('/')}/{rest}"
    return [
        (f"{_absolute(folder)}{info.path.removeprefix(inside)}{mark}{options}", info)
        for info in sorted(found, key=lambda info: info.path)
        if info.type == FileType.File and PurePosixPath(f"/{info.path.strip('/')}").match(wanted)
    ]


def _described(path: str, info: Any) -> DataFile:
    if info.type != FileType.File:
        raise DataError(f"{path}: this is no file; name the files in it, e.g. {path}/*.jsonl")
    name = path.partition("?")[0] if "://" in path else path
    ending = next((ending for ending in _ENDINGS if name.endswith(ending)), None)
    if ending is None:
        raise DataError(f"{path}: rows are read from files that end in {', '.join(_ENDINGS)}")
    return DataFile(path, _ENDINGS[ending], info.size, info.mtime_ns or 0)


def _store(path: str) -> tuple[Any, str]:
    if "://" in path:
        store, inside = FileSystem.from_uri(path)
        return store, inside
    return LocalFileSystem(), os.path.abspath(path)


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)
