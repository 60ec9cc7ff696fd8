"""All training rows of a run by sample number: what their fragments hold, how rows are fetched."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from raymdm.data.files import DataFile
from raymdm.data.fragment import Fragment, read_lines, read_table
from raymdm.data.schema import MARKS

Load = Callable[[int], pa.Table]
"""The decoded rows of a fragment, by its number."""
_ROW_BYTES = 64  # of a decoded row beside its tokens: offsets, prompt length, validity


@dataclass(frozen=True)
class TrainingRows:
    """Facts about all fragments; nothing here grows with the number of rows.

    Sample number = the row's number over all fragments, in the order of sources and files.

    Attributes:
        files: of each source.
        sources: of each source its fragments, none of them empty.
        left_out: fragments with bad lines, which have no number.
    """

    files: tuple[tuple[DataFile, ...], ...]
    sources: tuple[tuple[Fragment, ...], ...]
    left_out: tuple[Fragment, ...] = ()

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def rows_and_bad(self) -> int:
        """Rows with the bad ones that are left out."""
        return len(self) + sum(len(fragment.bad) for fragment in self.left_out)

    @cached_property
    def fragments(self) -> tuple[Fragment, ...]:
        """Those of all sources; their numbers are places in here."""
        return tuple(fragment for source in self.sources for fragment in source)

    @property
    def path(self) -> str:
        """The file, or what else they are, for messages."""
        (first, *others) = (file.path for source in self.files for file in source)
        return f"{first} and {len(others)} other files" if others else first

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(fragment.longest for fragment in self.fragments)

    @cached_property
    def marks(self) -> frozenset[str]:
        """Which of the optional fields `MARKS` some row has."""
        return frozenset(mark for fragment in self.fragments for mark in fragment.marks)

    @cached_property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(fragment.tokens for fragment in self.fragments)

    @cached_property
    def decoded_bytes(self) -> int:
        """About what all rows take when they are decoded."""
        return 4 * self.tokens + _ROW_BYTES * len(self)

    def read(self, samples: Iterable[int]) -> list[dict[str, Any]]:
        """The rows with these sample numbers, in their order: input_ids, prompt_length, and the
        marks that they have. Fragments that were read lately are kept.
        """
        table = self.take(np.array(list(samples), dtype=np.int64), self._lately)
        return [
            {name: value for name, value in row.items() if value is not None}
            for row in table.to_pylist()
        ]

    def names(self, samples: Iterable[int]) -> list[str]:
        """What the rows call themselves (`id`), else `row` and the sample number, from 0."""
        names = []
        for sample in samples:
            number = int(np.searchsorted(self._ends, sample, side="right"))
            fragment = self.fragments[number]
            bad = set(fragment.bad)
            lines = enumerate(read_lines(fragment))
            good = [line for at, line in lines if at not in bad and line.strip()]
            row = json.loads(good[int(sample - self._firsts[number])])
            names.append(str(row.get("id", f"row {sample}")))
        return names

    def take(self, samples: np.ndarray, load: Load) -> pa.Table:
        """The rows with these sample numbers, in their order, as columns of `fragment.SCHEMA`.

        Args:
            samples: int64[B].
            load: gives the fragments; each that is needed is asked for once.
        """
        at = np.searchsorted(self._ends, samples, side="right")
        within = samples - self._firsts[at]
        needed = np.unique(at)
        if len(needed) == 1:
            return load(int(needed[0])).take(within)
        tables = [load(int(number)).take(within[at == number]) for number in needed]
        taken = np.argsort(at, kind="stable")  # the samples as they lie in `tables`
        return pa.concat_tables(tables).combine_chunks().take(np.argsort(taken))

    def load(self, number: int) -> pa.Table:
        """The decoded rows of a fragment, from its file."""
        return read_table(self.fragments[number])

    def _lately(self, number: int) -> pa.Table:
        return _read_lately(self.fragments[number])

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([fragment.rows for fragment in self.fragments])

    @cached_property
    def _firsts(self) -> np.ndarray:
        return self._ends - [fragment.rows for fragment in self.fragments]

    def __reduce__(self) -> tuple[Any, ...]:
        return TrainingRows, (self.files, self.sources, self.left_out)


class FragmentCache:
    """Decoded fragments, held as long as they may be needed again."""

    def __init__(self, rows: TrainingRows) -> None:
        self.rows = rows
        self.held: dict[int, pa.Table] = {}

    def __call__(self, number: int) -> pa.Table:
        """The fragment's decoded rows."""
        if number not in self.held:
            self.held[number] = self.rows.load(number)
        return self.held[number]

    def keep(self, numbers: Sequence[int] | np.ndarray) -> None:
        """Drop all others."""
        kept = set(map(int, numbers))
        self.held = {number: table for number, table in self.held.items() if number in kept}


def present_marks(table: pa.Table, marks: frozenset[str]) -> pa.Table:
    """Without the columns of marks that no row of the data has."""
    return table.drop_columns([mark for mark in MARKS if mark not in marks])


_read_lately = lru_cache(maxsize=8)(read_table)
