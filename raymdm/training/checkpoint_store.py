"""Folders of checkpoints, on a local path or in any store that Arrow opens, and which are whole.

Every rank writes its files and then, last of all, the list of them (`rank-3.json`). A checkpoint is
whole when the lists of all its ranks are there and every listed file has its listed size, so one
that a kill or a full disk cut short is never taken, whoever wrote how much of it. Nothing else is
recorded: what is in the store is what there is.
"""

import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from pyarrow import fs

from raymdm.config.paths import without_keys
from raymdm.errors import CheckpointError, UnreachableError

_NAME = re.compile(r"step-(\d{8,})")
_LIST = "rank-{rank}.json"


def checkpoint_name(step: int) -> str:
    """Folder name of the checkpoint after `step` steps."""
    return f"step-{step:08d}"


def checkpoint_step(name: str) -> int:
    """Steps done at the checkpoint of this name."""
    found = _NAME.fullmatch(name)
    assert found is not None, name
    return int(found[1])


class CheckpointStore:
    """The checkpoints of one run under one folder.

    Args:
        place: a local path, or a URI that `pyarrow.fs` opens (`s3://bucket/folder`, `gs://…`).

    Raises:
        CheckpointError: no such kind of store, or its address cannot be understood.
    """

    def __init__(self, place: str) -> None:
        self.place = without_keys(place)
        try:
            self.filesystem, self.root = _open(place)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise CheckpointError(
                f"checkpoints.storage {self.place}: not a place that can be opened ({error}); "
                "give a path or a URI such as s3://bucket/folder"
            ) from error
        self.local = isinstance(self.filesystem, fs.LocalFileSystem)

    def folder(self, name: str) -> str:
        """Path of a checkpoint in `filesystem`."""
        return str(PurePosixPath(self.root, name))

    def whole(self) -> list[str]:
        """Names of the checkpoints that are whole, in the order of their steps."""
        return [name for name in self.names() if self.is_whole(name)]

    def newest(self) -> str | None:
        """Name of the newest whole checkpoint."""
        return next((name for name in reversed(self.names()) if self.is_whole(name)), None)

    def names(self) -> list[str]:
        """Names of all checkpoints, whole or not, in the order of their steps."""
        selector = fs.FileSelector(self.root, allow_not_found=True)
        found = [info.base_name for info in self._reach(self.filesystem.get_file_info, selector)]
        return sorted(filter(_NAME.fullmatch, found), key=checkpoint_step)

    def is_whole(self, name: str) -> bool:
        """Whether every rank has listed its files and all of them are there."""
        sizes = self._sizes(name)
        ranks, rank = 1, 0
        while rank < ranks:
            file = _LIST.format(rank=rank)
            if file not in sizes:
                return False
            try:
                listed = json.loads(self.read(name, file))
            except ValueError:
                return False
            ranks = listed["ranks"]
            if any(sizes.get(file) != size for file, size in listed["files"].items()):
                return False
            rank += 1
        return True

    def read(self, name: str, file: str) -> bytes:
        """Content of one file of a checkpoint.

        Raises:
            UnreachableError: it is not there, or the store does not answer.
        """

        def content() -> bytes:
            with self.filesystem.open_input_stream(f"{self.folder(name)}/{file}") as stream:
                return bytes(stream.read())

        found: bytes = self._reach(content)
        return found

    def clear(self, name: str) -> None:
        """Make room for a checkpoint: nothing of an earlier one of this name stays."""
        self.drop(name)
        self._reach(self.filesystem.create_dir, self.folder(name), recursive=True)

    def seal(self, name: str, rank: int, ranks: int, files: dict[str, int]) -> None:
        """List what this rank has written, by size in bytes; every other file must be there."""
        content = json.dumps({"ranks": ranks, "files": files}).encode()
        final = f"{self.folder(name)}/{_LIST.format(rank=rank)}"
        # Stores of objects show a file when it is closed; a local file is there at once.
        written = f"{final}.part" if self.local else final
        with self.filesystem.open_output_stream(written) as stream:
            stream.write(content)
        if self.local:
            flush(Path(written))
            os.replace(written, final)
            # Older checkpoints may be removed now: this one must not be lost with the power.
            for folder in (Path(final).parent, Path(self.root)):
                flush(folder)

    def upload(self, source: Path, name: str, rank: int, ranks: int) -> None:
        """Copy what this rank wrote to a local folder into the store, and seal it."""
        if not source.is_dir():
            raise FileNotFoundError(f"{source} is not there to be uploaded")
        files = sizes_of(source)
        for file in files:
            target = PurePosixPath(self.folder(name), file)
            self.filesystem.create_dir(str(target.parent), recursive=True)
            fs.copy_files(str(source / file), str(target), destination_filesystem=self.filesystem)
        self.seal(name, rank, ranks, files)

    def download(self, name: str, target: Path) -> None:
        """Copy a checkpoint into a local folder."""
        self._reach(
            fs.copy_files,
            self.folder(name),
            str(target),
            source_filesystem=self.filesystem,
            destination_filesystem=fs.LocalFileSystem(),
        )

    def drop(self, name: str) -> None:
        """Remove a checkpoint if it is there, its lists first: half of it must not look whole."""
        folder = self.folder(name)
        if self._reach(self.filesystem.get_file_info, folder).type == fs.FileType.NotFound:
            return
        for file in self._sizes(name):
            if file.startswith("rank-"):
                self._reach(self.filesystem.delete_file, f"{folder}/{file}")
        self._reach(self.filesystem.delete_dir, folder)

    def forget(self, file: str) -> None:
        """Remove a file beside the checkpoints, if it is there."""
        path = f"{self.root}/{file}"
        if self._reach(self.filesystem.get_file_info, path).type == fs.FileType.File:
            self._reach(self.filesystem.delete_file, path)

    def _sizes(self, name: str) -> dict[str, int]:
        folder = self.folder(name)
        selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
        found = self._reach(self.filesystem.get_file_info, selector)
        files = [info for info in found if info.type == fs.FileType.File]
        return {str(PurePosixPath(info.path).relative_to(folder)): info.size for info in files}

    def _reach(self, operation: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return operation(*arguments, **options)
        except OSError as error:
            raise UnreachableError(
                f"{self.place}: the checkpoints cannot be reached ({str(error).splitlines()[0]})"
            ) from error


def sizes_of(folder: Path) -> dict[str, int]:
    """Size in bytes of every file under a local folder, by its relative path."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def flush(path: Path) -> None:
    """Wait until the disk has this file or folder: a reboot must leave what a seal lists."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _open(place: str) -> tuple[fs.FileSystem, str]:
    if "://" in place:
        filesystem, root = fs.FileSystem.from_uri(place)
        return filesystem, root
    return fs.LocalFileSystem(), str(Path(place).absolute())
