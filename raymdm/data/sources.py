"""Raw rows: a JSONL, Parquet or CSV file, a Hugging Face data set, or a task's own generator.

A source is cut into chunks. The driver holds the chunks' addresses only; the rows are read where
they are tokenized, so on a cluster files must lie on storage that every node sees.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow
import pyarrow.parquet

from raymdm.data.csv_records import records
from raymdm.errors import DataError
from raymdm.tasks import PAGE_ROWS, TaskSpec

CHUNK_ROWS = 1000
FILE_ENDINGS = (".jsonl", ".json", ".parquet", ".csv", ".txt")


class Chunk(NamedTuple):
    """Address of a part of a source."""

    first: int
    """Number of the first row (of a file: its line, from 1)."""
    rows: int
    """Rows, or lines, in it."""
    offset: int
    """Where it starts: a byte, a row group or a page."""


class Row(NamedTuple):
    """A raw row and where it is."""

    place: str
    """For messages: `data/train.jsonl, line 17`."""
    id: str
    """Short name: `train.jsonl:17`."""
    fields: Mapping[str, Any]


class Source(Protocol):
    """Rows in a fixed order."""

    def digest(self) -> str:
        """Text that changes when the rows do (a hub data set: its name only)."""

    def chunks(self) -> list[Chunk]:
        """Addresses of all chunks, in order."""

    def read(self, chunk: Chunk, task: TaskSpec) -> Iterator[Row]:
        """The rows of a chunk. Raises DataError with the place of a broken row."""


@dataclass(frozen=True)
class JsonlSource:
    """A JSONL file: one object a line; empty lines are passed over."""

    path: str

    def digest(self) -> str:
        """Hash of the file."""
        return file_digest(self.path)

    def chunks(self) -> list[Chunk]:
        """A chunk for every `CHUNK_ROWS` lines."""
        chunks: list[Chunk] = []
        start = end = line = 0
        has_rows = False
        with open(self.path, "rb") as file:
            for line, text in enumerate(file, start=1):
                has_rows = has_rows or bool(text.strip())
                end += len(text)
                if line % CHUNK_ROWS == 0:
                    chunks.append(Chunk(line - CHUNK_ROWS + 1, CHUNK_ROWS, start))
                    start = end
        if rest := line % CHUNK_ROWS:
            chunks.append(Chunk(line - rest + 1, rest, start))
        if not has_rows:
            raise DataError(f"{self.path}: the file is empty; give one with rows")
        return chunks

    def read(self, chunk: Chunk, task: TaskSpec) -> Iterator[Row]:
        """The rows of a chunk."""
        name = Path(self.path).name
        with open(self.path, "rb") as file:
            file.seek(chunk.offset)
            for line in range(chunk.first, chunk.first + chunk.rows):
                text = file.readline()
                if text.strip():
                    place = f"{self.path}, line {line}"
                    yield Row(place, f"{name}:{line}", _parse(text, place))


@dataclass(frozen=True)
class ParquetSource:
    """A Parquet file; a chunk is a row group."""

    path: str

    def digest(self) -> str:
        """Hash of the file."""
        return file_digest(self.path)

    def chunks(self) -> list[Chunk]:
        """A chunk for every row group that has rows."""
        chunks: list[Chunk] = []
        first = 1
        try:
            metadata = pyarrow.parquet.read_metadata(self.path)
        except pyarrow.ArrowException as error:
            raise DataError(f"{self.path}: cannot be read as Parquet ({error})") from error
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            if rows:
                chunks.append(Chunk(first, rows, group))
            first += rows
        if not chunks:
            raise DataError(f"{self.path}: the file is empty; give one with rows")
        return chunks

    def read(self, chunk: Chunk, task: TaskSpec) -> Iterator[Row]:
        """The rows of a chunk."""
        name = Path(self.path).name
        number = chunk.first
        with pyarrow.parquet.ParquetFile(self.path) as file:
            for batch in file.iter_batches(CHUNK_ROWS, row_groups=[chunk.offset]):
                for fields in batch.to_pylist():
                    yield Row(f"{self.path}, row {number}", f"{name}:{number}", fields)
                    number += 1


@dataclass(frozen=True)
class CsvSource:
    """A CSV file with a header; every field is a text."""

    path: str

    def digest(self) -> str:
        """Hash of the file."""
        return file_digest(self.path)

    def chunks(self) -> list[Chunk]:
        """A chunk for every `CHUNK_ROWS` records; reads the file once."""
        chunks: list[Chunk] = []
        with open(self.path, "rb") as file:
            header, end = None, 0
            first, start, count = 0, 0, 0
            for record in records(file, self.path):
                if header is None:
                    header = record.fields
                    if len(set(header)) < len(header):
                        raise DataError(f"{self.path}, line {record.line}: two fields of one name")
                else:
                    if not count:
                        first, start = record.line, end
                    count += 1
                    if count == CHUNK_ROWS:
                        chunks.append(Chunk(first, count, start))
                        count = 0
                end = record.end
        if count:
            chunks.append(Chunk(first, count, start))
        if not chunks:
            raise DataError(f"{self.path}: the file is empty; give one with a header and rows")
        return chunks

    def read(self, chunk: Chunk, task: TaskSpec) -> Iterator[Row]:
        """The rows of a chunk."""
        name = Path(self.path).name
        with open(self.path, "rb") as file:
            header = next(records(file, self.path)).fields
            file.seek(chunk.offset)
            for record in islice(records(file, self.path, chunk.first), chunk.rows):
                place = f"{self.path}, line {record.line}"
                if len(record.fields) != len(header):
                    raise DataError(
                        f"{place}: {len(record.fields)} fields, the header has {len(header)}"
                    )
                fields = dict(zip(header, record.fields, strict=True))
                yield Row(place, f"{name}:{record.line}", fields)


@dataclass(frozen=True)
class HubSource:
    """A data set of the Hugging Face hub, or a folder that `datasets` can load."""

    key: str
    name: str
    config: str | None
    split: str

    def digest(self) -> str:
        """Name, configuration and split: the content is not looked at again."""
        return f"{self.name}/{self.config}/{self.split}"

    def chunks(self) -> list[Chunk]:
        """A chunk for every `CHUNK_ROWS` rows; loads the data set."""
        rows = len(self._load())
        if not rows:
            raise DataError(f"{self.key}: split {self.split!r} of {self.name} is empty")
        return [
            Chunk(first, min(CHUNK_ROWS, rows - first), first)
            for first in range(0, rows, CHUNK_ROWS)
        ]

    def read(self, chunk: Chunk, task: TaskSpec) -> Iterator[Row]:
        """The rows of a chunk."""
        rows = self._load().select(range(chunk.first, chunk.first + chunk.rows))
        for number, fields in enumerate(rows, start=chunk.first):
            yield Row(f"{self.name}, row {number}", f"{self.split}:{number}", fields)

    def _load(self) -> Any:
        try:
            return _load_split(self.name, self.config, self.split)
        except Exception as error:  # the hub and foreign builders fail in their own ways
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(
                f"{self.key}: {self.name!r} is no file here, and its split {self.split!r} (config "
                f"{self.config!r}) cannot be loaded as a Hugging Face data set ({reason})"
            ) from error


@dataclass(frozen=True)
class GeneratedSource:
    """Pages of a generated task. It has no end: ask for pages."""

    seed: int

    def digest(self) -> str:
        """The seed; the task's settings are part of the configuration."""
        return f"generated with seed {self.seed}"

    def chunks(self) -> list[Chunk]:
        """The first page."""
        return self.pages(0, 1)

    def pages(self, first: int, count: int) -> list[Chunk]:
        """A chunk for each of the pages."""
        return [Chunk(page * PAGE_ROWS, PAGE_ROWS, page) for page in range(first, first + count)]

    def read(self, chunk: Chunk, task: TaskSpec) -> Iterator[Row]:
        """The rows of a page."""
        assert task.generate is not None
        for number, fields in enumerate(task.generate(self.seed, chunk.offset), start=chunk.first):
            place = f"generated row {number} (seed {self.seed})"
            yield Row(place, f"generated-{self.seed}-{number}", fields)


def open_source(name: str, key: str, hub_config: str | None, split: str) -> Source:
    """The file or data set of that name; `key` is the configuration key it was given under.

    Raises:
        DataError: a file that is missing or of a kind that is not read here.
    """
    path = Path(name).expanduser().absolute()
    if path.is_file():
        if path.suffix == ".jsonl":
            return JsonlSource(str(path))
        if path.suffix == ".parquet":
            return ParquetSource(str(path))
        if path.suffix == ".csv":
            return CsvSource(str(path))
        raise DataError(f"{key}: {name} is no .jsonl, .parquet or .csv; convert it to one of them")
    if path.suffix in FILE_ENDINGS:
        raise DataError(f"{key}: file {name} not found (looked for {path})")
    return HubSource(key, str(path) if path.is_dir() else name, hub_config, split)


def _parse(text: bytes, place: str) -> Mapping[str, Any]:
    try:
        fields = json.loads(text.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at column {error.colno}"
        raise DataError(f"{place}: not valid JSON ({reason}); mend or remove the line") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 ({error.reason}); mend or remove the line") from error
    if not isinstance(fields, dict):
        raise DataError(f"{place}: expected an object, found a {type(fields).__name__}")
    return fields


def file_digest(path: str) -> str:
    """Hash of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


@lru_cache(maxsize=2)
def _load_split(name: str, config: str | None, split: str) -> Any:
    """Kept for the process: a worker reads many chunks of the same split."""
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset(name, config, split=split)
