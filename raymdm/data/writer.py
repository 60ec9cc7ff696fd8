"""The files of a prepared folder: counted, hashed, and in place only when all of them are done."""

import fcntl
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raymdm.data.manifest import NAME, SplitManifest, read_manifest
from raymdm.data.schema import split_file
from raymdm.errors import DataError


class SplitWriter:
    """One split's file, with everything the manifest says about it."""

    def __init__(self, folder: Path, split: str) -> None:
        self.split = split
        self.rows = 0
        self.too_long = 0
        self.duplicates = 0
        self.wrong = 0
        self.with_delimiters = 0
        self.with_syntax = 0
        self._longest_response = 0
        self._lengths: Counter[int] = Counter()
        self._digest = hashlib.sha256()
        self._file = open(folder / split_file(split), "wb")  # noqa: SIM115  closed by `close`

    def add(
        self,
        line: bytes,
        tokens: int,
        response_tokens: int,
        *,
        wrong: bool,
        has_delimiters: bool,
        has_syntax: bool,
    ) -> None:
        """Write a finished line."""
        self._file.write(line)
        self._digest.update(line)
        self._lengths[tokens] += 1
        self._longest_response = max(self._longest_response, response_tokens)
        self.rows += 1
        self.wrong += wrong
        self.with_delimiters += has_delimiters
        self.with_syntax += has_syntax

    def close(self) -> SplitManifest:
        """Finish the file."""
        self._file.close()
        return SplitManifest(
            file=split_file(self.split),
            rows=self.rows,
            dropped_too_long=self.too_long,
            duplicates_dropped=self.duplicates,
            wrong_by_own_scorer=self.wrong,
            tokens=sum(length * rows for length, rows in self._lengths.items()),
            median_row=self._median(),
            longest_row=max(self._lengths, default=0),
            longest_response=self._longest_response,
            sha256=self._digest.hexdigest(),
            rows_with_delimiters=self.with_delimiters,
            rows_with_syntax=self.with_syntax,
        )

    def _median(self) -> int:
        seen = 0
        for length in sorted(self._lengths):
            seen += self._lengths[length]
            if 2 * seen >= self.rows:
                return length
        return 0


def already_prepared(folder: Path, fingerprint: str) -> bool:
    """Whether the folder holds just these data.

    Raises:
        DataError: it holds something else, which is never overwritten.
    """
    if (folder / NAME).exists():
        if read_manifest(folder).fingerprint == fingerprint:
            return True
        raise DataError(
            f"data.folder: {folder} was prepared with other settings or source files; choose "
            "another data.folder, or remove this one"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"data.folder: {folder} holds other files; choose a folder that is new or empty"
        )
    return False


@contextmanager
def folder_in_the_making(folder: Path) -> Iterator[Path]:
    """A folder beside the final one, renamed to it at the end: a killed run leaves no half of it.

    Raises:
        DataError: another process is preparing the same folder, or it cannot be written.
    """
    making = folder.with_name(f"{folder.name}.preparing")
    try:
        making.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"data.folder: cannot write {making} ({error.strerror})") from error
    lock = os.open(making, os.O_RDONLY)
    try:
        _lock(lock, folder)
        try:
            for left_over in making.iterdir():  # of a run that was killed
                shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
            yield making
            _rename(making, folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    finally:
        os.close(lock)


def _lock(descriptor: int, folder: Path) -> None:
    """Take the folder for this process; the lock is gone with it, however it ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DataError(
            f"data.folder: another `raymdm prepare` is writing {folder}; wait for it"
        ) from error


def _rename(making: Path, folder: Path) -> None:
    try:
        making.rename(folder)
    except OSError as error:
        raise DataError(
            f"data.folder: cannot rename {making} to {folder} ({error.strerror}); choose a folder "
            "inside a mounted one, not the mount itself"
        ) from error
