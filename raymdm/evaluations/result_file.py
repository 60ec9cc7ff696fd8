"""A JSONL file of results that outlives a cut: the same work again does only what is missing.

While the work goes on, rows are appended chunk by chunk to `FILE.partial`, whose first line says
what they are results of. At the end they are written to `FILE` in order, with their settings beside
it in `FILE.settings.json`. So a `FILE` that is there is complete.
"""

import fcntl
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from raymdm.config.loading import fingerprint
from raymdm.errors import DataError
from raymdm.training.run_directory import first_difference, write_json

Row = dict[str, Any]


class ResultFile:
    """Rows by their number, kept as they come. Close it (a context manager) to let others work."""

    def __init__(
        self, path: Path, settings: Mapping[str, Any], about: Mapping[str, Any] | None = None
    ) -> None:
        """Begin, or go on with what an earlier run of the same work left.

        Args:
            path: of the finished file; its folder must be there.
            settings: everything that the rows depend on, as JSON can say it.
            about: what else to keep beside them; may differ from run to run.

        Raises:
            DataError: rows of other settings are there (names the first difference), a file that
                is not ours, a broken line, another process at work, or a folder that cannot be
                written.
        """
        self.path = path
        self.partial = path.with_name(f"{path.name}.partial")
        self.settings_file = path.with_name(f"{path.name}.settings.json")
        self.header = {
            "fingerprint": fingerprint(settings),
            "settings": json.loads(json.dumps(settings)),
            "about": dict(about or {}),
        }
        self._places: dict[int, int] = {}
        self.complete = self._check_finished()
        if self.complete:
            return
        try:
            self._file: BinaryIO = open(self.partial, "a+b")  # noqa: SIM115  closed by `close`
        except OSError as error:
            raise DataError(
                f"{path}: cannot be written ({error.strerror}); choose another file"
            ) from error
        try:
            self._lock()
            self._read()
        except BaseException:
            self._file.close()
            raise

    @property
    def done(self) -> Collection[int]:
        """Numbers of the rows that are kept."""
        return self._places.keys()

    def append(self, rows: Sequence[Row]) -> None:
        """Keep rows, each with its `number`: they are on disk when this returns.

        Raises:
            DataError: the disk is full.
        """
        try:
            place = self._file.seek(0, os.SEEK_END)
            lines = [_line(row) for row in rows]
            self._file.write(b"".join(lines))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise DataError(
                f"{self.partial}: cannot be written ({error.strerror}); make room and run the same "
                "command again: what is finished is kept"
            ) from error
        for row, line in zip(rows, lines, strict=True):
            self._places[int(row["number"])] = place
            place += len(line)

    def rows(self) -> Iterator[Row]:
        """All rows that are kept, in the order of their numbers."""
        for number in sorted(self._places):
            self._file.seek(self._places[number])
            yield json.loads(self._file.readline())

    def finish(self) -> None:
        """Write the final file, in order and without the numbers; it appears only whole."""
        self.finish_as({key: row[key] for key in row if key != "number"} for row in self.rows())

    def finish_as(self, rows: Iterable[Row], about: Mapping[str, Any] | None = None) -> None:
        """The same with the rows that were made of those that are kept.

        Args:
            rows: of the final file.
            about: more to keep beside them.
        """
        header = {**self.header, "about": {**self.header["about"], **(about or {})}}
        making = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with open(making, "wb") as file:
                for row in rows:
                    file.write(_line(row))
                file.flush()
                os.fsync(file.fileno())
            write_json(self.settings_file, header)
            making.replace(self.path)
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot be written ({error.strerror}); run the same command again: "
                "what is finished is kept"
            ) from error
        finally:
            making.unlink(missing_ok=True)
        self.discard()
        self.complete = True

    def discard(self) -> None:
        """Forget the kept rows, once their results are elsewhere."""
        self.partial.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let the file go; what is kept stays."""
        if not self.complete:
            with suppress(OSError):  # what could not be written has been said
                self._file.close()

    def __enter__(self) -> "ResultFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check_finished(self) -> bool:
        if not self.path.exists():
            return False
        try:
            there = json.loads(self.settings_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise DataError(
                f"{self.path} is there already, and no {self.settings_file.name} says what it is; "
                "choose another file, or remove it"
            ) from None
        self._check_same(self.path, there)
        return True

    def _check_same(self, path: Path, there: Any) -> None:
        settings = there.get("settings") if isinstance(there, dict) else None
        if not isinstance(settings, dict):
            raise DataError(f"{path} is no file of ours; choose another file, or remove it")
        if there.get("fingerprint") != self.header["fingerprint"]:
            key, was, now = first_difference(settings, self.header["settings"])
            raise DataError(
                f"{path} has results of other settings: {key} is {was!r} there and {now!r} here; "
                "choose another file, or remove it"
            )

    def _lock(self) -> None:
        """Take the file for this process; the lock is gone with it, however it ends."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"{self.partial}: another process is writing it; wait for it, or choose another "
                "file"
            ) from None

    def _read(self) -> None:
        """Find the rows of an earlier run, and drop the half of a line that a cut left."""
        self._file.seek(0)
        place = 0
        for number, line in enumerate(iter(self._file.readline, b""), start=1):
            if not line.endswith(b"\n"):
                self._file.truncate(place)
                break
            try:
                content = json.loads(line)
                if number > 1:
                    self._places[int(content["number"])] = place
            except (ValueError, TypeError, KeyError) as error:
                raise DataError(
                    f"{self.partial}, line {number}: not a row of results; remove the file to "
                    "begin again"
                ) from error
            if number == 1:
                self._check_same(self.partial, content)
            place += len(line)
        if place == 0:
            self._file.write(_line(self.header))


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"
