"""Rows come out the same whatever files they lie in and however those are cut."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_files import open_files, random_rows, write_rows

from raymdm.data.files import find_files
from raymdm.data.fragment import Fragment, read_lines, whole_lines
from raymdm.data.rows import TrainingRows
from raymdm.errors import DataError

ROWS = random_rows(70)


def all_rows(rows: TrainingRows) -> list[dict[str, Any]]:
    return rows.read(range(len(rows)))


def without_ids(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "id"} for row in rows]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    rows = open_files(write_rows(tmp_path / f"a.{ending}", ROWS), fragment_bytes=500)
    assert all_rows(rows) == without_ids(ROWS)
    assert rows.names([0, 69, 33]) == ["0-0", "0-69", "0-33"]
    assert rows.longest == 12
    assert rows.tokens == sum(len(row["input_ids"]) for row in ROWS)
    assert rows.marks == {"delimiters", "syntax"}
    assert (len(rows.fragments) > 3) == (ending != "jsonl.gz")


def test_equal_rows_have_equal_contents_in_every_kind_of_file(tmp_path: Path) -> None:
    endings = ("jsonl", "jsonl.gz", "parquet")
    files = [write_rows(tmp_path / f"a.{ending}", ROWS, group=100) for ending in endings]
    contents = {open_files(file).fragments[0].content for file in files}
    assert len(contents) == 1
    changed = {**ROWS[1], "prompt_length": (ROWS[1]["prompt_length"] + 1) % 2}
    other = write_rows(tmp_path / "b.jsonl", [ROWS[0], changed, *ROWS[2:]])
    assert open_files(other).fragments[0].content not in contents


def test_sample_numbers_count_on_over_the_files(tmp_path: Path) -> None:
    write_rows(tmp_path / "b.jsonl.gz", ROWS[20:30])
    write_rows(tmp_path / "c.parquet", ROWS[30:])
    write_rows(tmp_path / "a.jsonl", ROWS[:20])
    rows = open_files([tmp_path / "*.jsonl", tmp_path / "*.jsonl.gz", tmp_path / "c.parquet"])
    assert all_rows(rows) == without_ids(ROWS)
    assert rows.read([65, 3, 25, 3]) == without_ids([ROWS[n] for n in (65, 3, 25, 3)])


@given(
    lines=st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line), max_size=20),
    size=st.integers(1, 40),
    ended=st.booleans(),
)
def test_ranges_of_any_size_hold_every_line_once(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], size: int, ended: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    text = b"\n".join(lines) + b"\n" * ended
    path.write_bytes(text)
    starts = range(0, len(text), size)
    pieces = [Fragment(str(path), "jsonl", at, min(size, len(text) - at)) for at in starts]
    read = [line for piece in pieces for line in read_lines(whole_lines(piece))]
    expected = text.split(b"\n")
    assert read == (expected[:-1] if expected[-1] == b"" else expected)


@pytest.mark.parametrize("fragment_bytes", [40, 10_000])
def test_blank_lines_take_no_number(tmp_path: Path, fragment_bytes: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n \r\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    assert all_rows(open_files(path, fragment_bytes=fragment_bytes)) == without_ids(ROWS)


def test_files_are_found_by_pattern_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("part-2.jsonl", "part-10.jsonl", "x/part-1.jsonl", "other.txt", "[1].jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("\n")

    def names(pattern: str) -> list[str]:
        return [str(Path(file.path).relative_to(tmp_path)) for file in find_files([pattern])]

    assert names(f"{tmp_path}/part-*.jsonl") == ["part-10.jsonl", "part-2.jsonl"]
    assert names(f"{tmp_path}/*/*.jsonl") == ["x/part-1.jsonl"]
    assert names(f"{tmp_path}/[1].jsonl") == ["[1].jsonl"], "a file that is there is no pattern"
    uris = [file.path for file in find_files([f"file://{tmp_path}/part-*.jsonl"])]
    assert uris == [f"file://{tmp_path}/part-{n}.jsonl" for n in (10, 2)]


def test_rows_are_read_through_a_uri(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", ROWS)
    assert all_rows(open_files([f"file://{tmp_path}/*.jsonl"])) == without_ids(ROWS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.jsonl", "there is no such file"),
        ("*.jsonl", "there is no such file"),
        ("missing/*.jsonl", "there is no such file"),
        ("rows.csv", r"rows are read from files that end in \.jsonl, \.jsonl\.gz, \.parquet"),
        ("folder", "this is no file; name the files in it"),
        ("empty.parquet", "cannot be read"),
        ("broken.jsonl.gz", "cannot be read"),
        ("short.jsonl.gz", "cannot be read"),
        ("short.parquet", "cannot be read"),
    ],
)
def test_what_is_no_file_of_rows_is_refused_by_name(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "rows.csv").write_text("a\n")
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "broken.jsonl.gz").write_bytes(b"no gzip at all")
    whole = gzip.compress(json.dumps(ROWS[0]).encode())
    (tmp_path / "short.jsonl.gz").write_bytes(whole[:-9])
    write_rows(tmp_path / "short.parquet", ROWS)
    content = (tmp_path / "short.parquet").read_bytes()
    (tmp_path / "short.parquet").write_bytes(content[:4] + bytes(400) + content[404:])
    with pytest.raises(DataError, match=message) as caught:
        open_files(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("kind", [pa.int16(), pa.int64(), pa.uint32()])
@pytest.mark.parametrize("large", [False, True])
def test_parquet_columns_of_any_integers_are_taken(
    tmp_path: Path, kind: pa.DataType, large: bool
) -> None:
    ids = [row["input_ids"] for row in ROWS]
    lists = pa.large_list(kind) if large else pa.list_(kind)
    lengths = pa.array([row["prompt_length"] for row in ROWS], kind)
    pq.write_table(
        pa.table({"input_ids": pa.array(ids, lists), "prompt_length": lengths}),
        tmp_path / "a.parquet",
    )
    read = all_rows(open_files(tmp_path / "a.parquet"))
    assert [row["input_ids"] for row in read] == ids


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("input_ids", [[5, 6, 1], None, [5, 1]], "row 2: field 'input_ids' is missing"),
        ("input_ids", [[5, 6, 1], [5, None, 1], [5, 1]], "row 2: input_ids must be a list of int"),
        ("input_ids", [[5, 6, 1], [5, 6, 300], [5, 1]], "row 2: token id 300 is outside"),
        ("input_ids", [[5, 6, 1], [5, 2**40, 1], [5, 1]], "row 2: token id 1099511627776 is"),
        ("input_ids", [[5, 6, 1], [5, -1, 1], [5, 1]], "row 2: token id -1 is outside"),
        ("input_ids", [[5.0, 6.0], [5.0, 7.0], [5.0, 1.0]], "row 1: input_ids must be a list"),
        ("input_ids", [[True, True]] * 3, "row 1: input_ids must be a list"),
        ("prompt_length", [1, None, 1], "row 2: field 'prompt_length' is missing"),
        ("prompt_length", [1, 3, 1], "row 2: prompt_length 3 leaves no response"),
        ("prompt_length", [1, -1, 1], "row 2: prompt_length must be an integer >= 0"),
        ("prompt_length", [1.0, 1.0, 1.0], "row 1: prompt_length must be an integer"),
        ("delimiters", [None, [0], [1]], "row 2: delimiters has position 0, outside the response"),
        ("delimiters", [None, [3], [1]], "row 2: delimiters has position 3, outside the response"),
        ("syntax", [None, [1], [0]], "row 2: syntax has position 1, outside the prompt"),
        ("syntax", [None, [-1], [0]], "row 2: syntax has position -1, outside the prompt"),
        ("syntax", [None, [None], [0]], "row 2: syntax must be a list of integers"),
    ],
)
def test_a_bad_row_of_a_parquet_file_is_named_by_file_and_row(
    tmp_path: Path, column: str, values: list[Any], message: str
) -> None:
    columns = {"input_ids": [[5, 6, 1], [5, 7, 1], [5, 1]], "prompt_length": [1, 1, 1]}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({**columns, column: values}), path)
    with pytest.raises(DataError, match=message) as caught:
        open_files(path)
    assert f"{path}, row" in str(caught.value)
    left = [n for n in range(3) if n + 1 != int(message.split(":")[0].removeprefix("row "))]
    if not message.startswith("row 1"):
        rows = open_files(path, bad_rows="skip")
        assert [len(row["input_ids"]) for row in rows.read([0, 1])] == [3, 2]
        assert rows.left_out[0].bad == (1,)
        assert left == [0, 2]


def test_taking_rows_reads_only_the_fragments_they_are_in(tmp_path: Path) -> None:
    rows = open_files(write_rows(tmp_path / "a.parquet", ROWS, group=10))
    asked: list[int] = []

    def load(number: int) -> pa.Table:
        asked.append(number)
        return rows.load(number)

    table = rows.take(np.array([35, 5, 31, 6, 5]), load)
    assert sorted(asked) == [0, 3]
    assert table["input_ids"].to_pylist() == [ROWS[n]["input_ids"] for n in (35, 5, 31, 6, 5)]
