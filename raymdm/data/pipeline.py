"""Raw rows -> a prepared folder, streamed through Ray Data in the order of the source.

The driver holds hashes of prompts and counts, never rows: Ray tasks read, format and tokenize the
chunks of a source, and their finished lines are written as they arrive. Chunks do not depend on the
cluster and their order is kept, so the files are the same whatever the number of CPUs.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import ray.data
from ray.exceptions import RayError

from raymdm.data.manifest import SplitManifest
from raymdm.data.schema import SPLITS, TEST_SHARE
from raymdm.data.sources import Chunk, GeneratedSource
from raymdm.data.work import Work, line_tables, text_tables
from raymdm.data.writer import SplitWriter
from raymdm.errors import DataError, RunError
from raymdm.tasks import PAGE_ROWS

TEXT_ROWS = 200_000
"""About so many training rows a BPE is trained on: more hardly change its merges."""
MOST_BLOCKS = 256
"""Ray tasks of one pass; each takes several chunks where there are more of them."""
NEW_SHARE_TO_GO_ON = 1e-3
"""A generated task is exhausted when fewer rows of a round than this share are new problems."""
NAMED_ROWS = 3
"""Overlapping rows that an error message names."""

Progress = Callable[[int], None]
"""Called with the number of raw rows done since the last call."""


def training_texts(work: Work, chunks: list[Chunk], progress: Progress) -> Iterator[str]:
    """Prompts and responses of training rows (a sample of them where there are very many)."""
    share = min(1.0, TEXT_ROWS / sum(chunk.rows for chunk in chunks))
    for rows in _stream(text_tables, replace(work, text_share=share), chunks):
        for row in rows:
            yield row["text"]
        progress(len(rows) // 2)


class Preparation:
    """Writes the lines of one or more sources into the files of the three splits."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.splits = {split: SplitWriter(folder, split) for split in SPLITS}
        self._progress = progress
        self._test_rows: dict[bytes, str] = {}
        self._train_keys: set[bytes] = set()

    def close(self) -> dict[str, SplitManifest]:
        """Finish the files; what the manifest says of each."""
        return {name: split.close() for name, split in self.splits.items()}

    def test_file(self, work: Work, rows: int | None) -> None:
        """The test rows of a file: first, so that training rows can be held against them."""
        split = self.splits["test"]
        for row in self._lines(work, work.source.chunks()):
            if self._keep(row, split):
                self._test_rows[row["key"]] = row["id"]
                if split.rows == rows:
                    break

    def train_file(self, work: Work, rows: int | None) -> None:
        """The training and validation rows of a file.

        Raises:
            DataError: prompts that are test rows too; names some.
        """
        overlaps: list[str] = []
        for row in self._lines(work, work.source.chunks()):
            if row["line"] is not None and row["key"] in self._test_rows:
                overlaps.append(f"{row['id']} = {self._test_rows[row['key']]}")
            self._keep(row, self.splits[row["split"]])
            if self._trained_rows() == rows:
                break
        if overlaps:
            more = len(overlaps) - NAMED_ROWS
            raise DataError(
                f"{len(overlaps)} training rows have the prompt of a test row: "
                f"{', '.join(overlaps[:NAMED_ROWS])}{f' and {more} more' if more > 0 else ''}; "
                "remove them from one of the files"
            )

    def generated(self, work: Work, train_rows: int, test_rows: int) -> None:
        """Distinct problems of a task: exactly so many, no problem in two splits.

        Pages are made in rounds, each as large as all before it, until both counts are reached.

        Raises:
            DataError: the task has not that many distinct problems.
        """
        assert isinstance(work.source, GeneratedSource)
        page, pages = 0, first_pages(train_rows, test_rows)
        while True:
            before = self._distinct()
            chunks = work.source.pages(page, pages)
            if self._generate(work, chunks, train_rows, test_rows):
                return
            page, pages = page + pages, max(page, pages)
            if self._distinct() - before < NEW_SHARE_TO_GO_ON * PAGE_ROWS * len(chunks):
                raise DataError(
                    f"task {work.task.name} gave {self._trained_rows()} distinct training problems "
                    f"(wanted {train_rows}) and {self.splits['test'].rows} for the test (wanted "
                    f"{test_rows}) in {page * PAGE_ROWS} rows; {self._too_long()} were longer than "
                    "prepare.max_length. Ask for fewer with prepare.train_rows and "
                    "prepare.test_rows, or widen task.options"
                )

    def _generate(self, work: Work, chunks: list[Chunk], train_rows: int, test_rows: int) -> bool:
        """Take what is still missing from these pages; whether that was enough."""
        test = self.splits["test"]
        for row in self._lines(work, chunks):
            split = self.splits[row["split"]]
            is_test = split is test
            full = test.rows >= test_rows if is_test else self._trained_rows() >= train_rows
            if full:
                continue
            if row["key"] in self._test_rows or row["key"] in self._train_keys:
                split.duplicates += 1
                continue
            if self._keep(row, split):
                if is_test:
                    self._test_rows[row["key"]] = row["id"]
                else:
                    self._train_keys.add(row["key"])
            if test.rows >= test_rows and self._trained_rows() >= train_rows:
                return True
        return False

    def _keep(self, row: dict[str, Any], split: SplitWriter) -> bool:
        if row["line"] is None:
            split.too_long += 1
            return False
        split.add(
            row["line"],
            row["tokens"],
            row["response_tokens"],
            wrong=row["wrong"],
            has_delimiters=row["has_delimiters"],
            has_syntax=row["has_syntax"],
        )
        return True

    def _lines(self, work: Work, chunks: list[Chunk]) -> Iterator[dict[str, Any]]:
        for rows in _stream(line_tables, work, chunks):
            yield from rows
            self._progress(len(rows))

    def _trained_rows(self) -> int:
        return self.splits["train"].rows + self.splits["validation"].rows

    def _distinct(self) -> int:
        return self._trained_rows() + self.splits["test"].rows

    def _too_long(self) -> int:
        return sum(split.too_long for split in self.splits.values())


def first_pages(train_rows: int, test_rows: int) -> int:
    """Pages of a generated task that are mostly enough for so many rows of both splits."""
    rows = max(train_rows / (1 - TEST_SHARE), test_rows / TEST_SHARE)
    return ceil(1.1 * rows / PAGE_ROWS) + 1


def _stream(
    function: Callable[..., Any], work: Work, chunks: list[Chunk]
) -> Iterator[list[dict[str, Any]]]:
    """The rows that `function` makes of the chunks, table by table, in the chunks' order.

    Raises:
        DataError: the first row that cannot be used.
        RunError: a Ray task died.
    """
    addresses = ray.data.from_items(
        [chunk._asdict() for chunk in chunks],
        override_num_blocks=min(len(chunks), MOST_BLOCKS),
    )
    lines = addresses.map_batches(partial(function, work=work), batch_size=1, batch_format="numpy")
    lines.context.execution_options.preserve_order = True
    lines.context.enable_progress_bars = False
    try:
        for table in lines.iter_batches(batch_size=None, batch_format="pyarrow"):
            rows = table.to_pylist()
            for number, row in enumerate(rows):
                if row["error"] is not None:
                    # What comes before it may say something else first (an overlap, enough rows).
                    yield rows[:number]
                    raise DataError(row["error"])
            yield rows
    except RayError as error:
        cause = error.as_instanceof_cause() if hasattr(error, "as_instanceof_cause") else error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[-1]
        raise RunError(f"a Ray task of prepare failed: {reason}; --verbose shows it all") from error
