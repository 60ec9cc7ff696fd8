"""CSV files as a source of rows."""

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raymdm.data.sources import CHUNK_ROWS, CsvSource, Row, open_source
from raymdm.errors import DataError
from raymdm.tasks import get_task


def read(path: Path) -> list[Row]:
    source = CsvSource(str(path))
    task = get_task("sudoku")
    return [row for chunk in source.chunks() for row in source.read(chunk, task)]


def write(folder: Path, content: bytes | str) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_every_field_is_a_text_with_its_leading_zeros(tmp_path: Path) -> None:
    (row,) = read(write(tmp_path, "Puzzle,Solution\n0012,3.0\n"))
    assert row.fields == {"Puzzle": "0012", "Solution": "3.0"}


def test_a_row_says_where_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, 'a,b\n1,"two\nlines"\n\n3,"say ""4"""\r\n')
    first, second = read(path)
    assert first == Row(f"{path}, line 2", "rows.csv:2", {"a": "1", "b": "two\nlines"})
    assert second == Row(f"{path}, line 5", "rows.csv:5", {"a": "3", "b": 'say "4"'})


@pytest.mark.parametrize("rows", [1, CHUNK_ROWS, CHUNK_ROWS + 1, 2 * CHUNK_ROWS])
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_chunks_cover_the_file(tmp_path: Path, rows: int, end: str) -> None:
    lines = [f'{n},"é\n{n}"' for n in range(rows)]  # two lines a row, more bytes than characters
    path = write(tmp_path, "\ufeffn,text\n" + "\n".join(lines) + end)
    found = read(path)
    assert [row.fields for row in found] == [{"n": str(n), "text": f"é\n{n}"} for n in range(rows)]
    assert found[-1].place == f"{path}, line {2 * rows}"
    assert [chunk.rows for chunk in CsvSource(str(path)).chunks()] == [
        min(CHUNK_ROWS, rows - first) for first in range(0, rows, CHUNK_ROWS)
    ]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=5))
def test_what_the_csv_module_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "written.csv"
    with open(path, "w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["a", "b"])
        writer.writerows(rows)
    with open(path, newline="", encoding="utf-8") as file:
        assert [row.fields for row in read(path)] == list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty; give one with a header and rows"),
        ("a,b\n\n", "the file is empty; give one with a header and rows"),
        ("a,b\n1,2\n3\n", "line 3: 1 fields, the header has 2"),
        ("a,b\n1,2,3\n", "line 2: 3 fields, the header has 2"),
        ("a,a\n1,2\n", "line 1: two fields of one name"),
        ('a,b\n1,2\n3,"4\n5,6\n', "line 3: not valid CSV"),
        ('a,b\n1,"2"3\n', "line 2: not valid CSV"),
        (b"a,b\n1,2\n3,\xff\n", "line 3: not UTF-8"),
    ],
)
def test_broken_files_are_named_with_the_line(
    tmp_path: Path, content: bytes | str, message: str
) -> None:
    with pytest.raises(DataError, match=rf"rows\.csv(, |: ){message}"):
        read(write(tmp_path, content))


def test_the_ending_says_what_a_file_is(tmp_path: Path) -> None:
    path = write(tmp_path, "a\n1\n")
    assert open_source(str(path), "prepare.test", None, "test") == CsvSource(str(path))
    other = path.rename(tmp_path / "rows.txt")
    with pytest.raises(DataError, match=r"no \.jsonl, \.parquet or \.csv"):
        open_source(str(other), "prepare.test", None, "test")
    with pytest.raises(DataError, match=r"prepare\.test: file .*rows\.csv not found"):
        open_source(str(path), "prepare.test", None, "test")
