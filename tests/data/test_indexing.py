"""The pass before a run: bad rows by policy, and what a run directory keeps of it."""

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import ray
from training_files import data_section, manifest, open_files, random_rows, write_rows

from raymdm.config.loading import load_config, validate
from raymdm.config.paths import with_absolute_paths
from raymdm.data import indexing
from raymdm.data.indexing import INDEX, QUARANTINE, are_many, keep_rows, open_rows
from raymdm.data.mixture import MixedOrder, describe_quotas, make_order
from raymdm.data.order import Order, WindowOrder
from raymdm.data.rows import TrainingRows
from raymdm.errors import ConfigurationError, DataError
from raymdm.training.run_directory import identity

ROWS = random_rows(60)
BAD = {
    7: '{"input_ids": [1, 2',
    8: '{"prompt_length": 0}',
    41: '{"input_ids": [999], "prompt_length": 0}',
}


def write_with_bad(path: Path) -> Path:
    """Sixty rows, of which three are bad, after a blank line."""
    lines = [BAD.get(number) or json.dumps(row) for number, row in enumerate(ROWS)]
    text = ("\n" + "\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("fragment_bytes", [300, 10_000])
def test_a_bad_row_is_named_by_its_line_in_the_whole_file(
    tmp_path: Path, name: str, fragment_bytes: int
) -> None:
    write_rows(tmp_path / "0.jsonl", ROWS)
    path = write_with_bad(tmp_path / name)
    with pytest.raises(DataError, match=f"{path}, line 9: not valid JSON"):
        open_files([tmp_path / "0.jsonl", path], fragment_bytes=fragment_bytes)


@pytest.mark.ray
def test_ray_tasks_find_what_one_process_finds(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_with_bad(tmp_path / "a.jsonl")
    found = open_files(path, bad_rows="skip", fragment_bytes=300)
    with pytest.raises(DataError) as caught:
        open_files(path, fragment_bytes=300)
    message = f"{path}, line 9: not valid JSON .*; mend or remove the line"
    assert re.fullmatch(message, str(caught.value))
    monkeypatch.setattr(indexing.ray, "is_initialized", lambda: False)
    assert open_files(path, bad_rows="skip", fragment_bytes=300) == found
    assert len(found.fragments) > 8


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_skipped_rows_take_no_number_and_are_put_into_quarantine(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_with_bad(tmp_path / name)
    section = data_section(path, bad_rows="skip", fragment_bytes=300)
    rows = open_rows(section, Path(), manifest(), tmp_path)
    good = [row for number, row in enumerate(ROWS) if number not in BAD]
    assert (len(rows), rows.rows_and_bad) == (57, 60)
    assert [row["input_ids"] for row in rows.read(range(57))] == [row["input_ids"] for row in good]
    assert rows.names([6, 7, 56]) == ["0-6", "0-9", "0-59"]
    keep_rows(rows, section, manifest(), tmp_path)
    quarantine = tmp_path / QUARANTINE
    found = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert [(row["file"], row["line"], row["text"]) for row in found] == [
        (str(path), number + 2, text) for number, text in BAD.items()
    ]
    assert found[0]["reason"].startswith("not valid JSON")
    assert "'input_ids' is missing" in found[1]["reason"]
    assert "token id 999 is outside" in found[2]["reason"]
    assert capsys.readouterr().err == (
        f"3 bad rows are left out, 3 of them in {path}; see {quarantine}\n"
    )
    again = open_rows(section, Path(), manifest(), tmp_path)
    assert again == rows
    keep_rows(again, section, manifest(), tmp_path)
    assert capsys.readouterr().err == "", "it is said once"


def test_a_fragment_of_bad_rows_alone_is_in_quarantine_too(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "b.jsonl").write_text("nothing\n")
    section = data_section([tmp_path / "*.jsonl"], bad_rows="skip")
    rows = open_rows(section, Path(), manifest(), tmp_path)
    assert (len(rows), rows.rows_and_bad) == (60, 61)
    keep_rows(rows, section, manifest(), tmp_path)
    (row,) = map(json.loads, (tmp_path / QUARANTINE).read_text().splitlines())
    assert (row["file"], row["line"]) == (str(tmp_path / "b.jsonl"), 1)


def test_files_without_a_good_row_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n\n")
    (tmp_path / "b.jsonl").write_text("nothing\n")
    for name, policy in (("a.jsonl", "error"), ("b.jsonl", "skip")):
        with pytest.raises(DataError, match=f"{name}: the file has no rows"):
            open_files(tmp_path / name, bad_rows=policy)


def kept(tmp_path: Path) -> tuple[Path, TrainingRows]:
    path = write_rows(tmp_path / "a.jsonl", ROWS)
    section = data_section(path, fragment_bytes=300)
    rows = open_rows(section, Path(), manifest(), tmp_path)
    keep_rows(rows, section, manifest(), tmp_path)
    return path, rows


def reopened(tmp_path: Path, path: Path) -> TrainingRows:
    return open_rows(data_section(path, fragment_bytes=300), Path(), manifest(), tmp_path)


def test_a_resume_takes_the_facts_from_the_run_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rows = kept(tmp_path)

    def read(*arguments: Any) -> Any:
        raise AssertionError("a row was read")

    monkeypatch.setattr(indexing, "scan", read)
    assert reopened(tmp_path, path) == rows


def test_files_that_changed_since_the_run_began_are_refused(tmp_path: Path) -> None:
    path, _ = kept(tmp_path)
    write_rows(path, [*ROWS[:30], ROWS[31], ROWS[30], *ROWS[32:]])
    os.utime(path, ns=(0, 0))
    with pytest.raises(DataError, match=rf"{path}: its rows are not what {tmp_path} began with"):
        reopened(tmp_path, path)
    write_rows(path, ROWS[:-1])
    with pytest.raises(DataError, match="its rows are not what"):
        reopened(tmp_path, path)


def test_a_copy_of_the_files_is_as_good_as_the_files(tmp_path: Path) -> None:
    path, rows = kept(tmp_path)
    os.utime(path, ns=(0, 0))
    assert reopened(tmp_path, path).sources == rows.sources
    moved = path.rename(tmp_path / "moved.jsonl")
    again = reopened(tmp_path, moved)
    assert [f.content for f in again.fragments] == [f.content for f in rows.fragments]


def test_a_file_that_changes_while_a_run_reads_it_is_noticed(tmp_path: Path) -> None:
    path, rows = kept(tmp_path)
    write_rows(path, ROWS[:-1])
    with pytest.raises(DataError, match="not what it was when the run began"):
        rows.load(len(rows.fragments) - 1)


def test_the_index_holds_nothing_for_each_row(tmp_path: Path) -> None:
    def size(count: int) -> int:
        path = write_rows(tmp_path / "a.jsonl", random_rows(count))
        section = data_section(path)
        rows = open_rows(section, Path(), manifest(), tmp_path / "none")
        keep_rows(rows, section, manifest(), tmp_path)
        return (tmp_path / INDEX).stat().st_size

    assert abs(size(2000) - size(20)) < 20


def test_the_order_of_a_run_is_the_configured_one(tmp_path: Path) -> None:
    first, second = (write_rows(tmp_path / f"{n}.jsonl", random_rows(40, n)) for n in (1, 2))
    whole = open_files(first, fragment_bytes=300)
    assert make_order(data_section(first), whole, 5, 8) == Order(5, 40, 8)
    counts = tuple(fragment.rows for fragment in whole.fragments)
    windowed = data_section(first, shuffle="window", window_blocks=3)
    assert make_order(windowed, whole, 5, 8) == WindowOrder(5, counts, 8, 3)
    mixed = data_section(first, second, weights=[3, 1])
    parts = (Order(5, 40, 6, 0), Order(5, 40, 2, 1))
    assert make_order(mixed, open_files(first, second), 5, 8) == MixedOrder(5, parts)


def test_the_shares_of_a_mixture_are_said(tmp_path: Path) -> None:
    files = [write_rows(tmp_path / f"{n}.jsonl", random_rows(40, n)) for n in (1, 2)]
    rows, section = open_files(*files), data_section(*files, weights=[3, 1])
    assert describe_quotas(rows, make_order(section, rows, 5, 8)) == (
        f"rows of every step by source: 6 of {files[0]}, 2 of {files[1]}"
    )
    one = open_files(files[0])
    assert describe_quotas(one, make_order(data_section(files[0]), one, 5, 8)) is None


def test_a_large_set_is_checked_by_the_cluster(tmp_path: Path) -> None:
    small, large = write_rows(tmp_path / "a.jsonl", ROWS), tmp_path / "b.jsonl"
    with open(large, "wb") as file:
        file.truncate(2**26)  # a hole: it takes no room
    assert not are_many(data_section(small))
    assert are_many(data_section(small, large))
    assert not are_many(data_section(tmp_path / "none.jsonl")), "opening it says what is wrong"


@pytest.mark.ray
def test_an_actor_checks_rows_itself(ray_cluster: None, tmp_path: Path) -> None:
    """It would wait for a CPU that it holds itself."""
    section = data_section(write_rows(tmp_path / "a.jsonl", ROWS), fragment_bytes=300)

    class Trial:
        def rows(self, *arguments: Any) -> TrainingRows:
            return open_rows(*arguments)

    trial = ray.remote(num_cpus=2)(Trial).remote()
    found = trial.rows.remote(section, Path(), manifest(), tmp_path / "none")
    assert len(ray.get(found, timeout=120)) == 60


def test_a_source_with_fewer_rows_than_its_share_is_refused(tmp_path: Path) -> None:
    first, second = (write_rows(tmp_path / f"{n}.jsonl", ROWS[:n]) for n in (40, 5))
    message = r"data\.sources\.1 has 5 rows and gives 8 to every batch"
    with pytest.raises(DataError, match=message):
        make_order(data_section(first, second), open_files(first, second), 0, 16)


def test_a_mixture_needs_a_number_of_steps() -> None:
    sources = [{"files": ["a.jsonl"]}, {"files": ["b.jsonl"]}]
    with pytest.raises(ConfigurationError, match=r"several sources.*give training\.steps"):
        validate({"data": {"sources": sources}, "training": {"epochs": 2}})
    validate({"data": {"sources": sources}, "training": {"steps": 2}})
    validate({"data": {"sources": sources[:1]}})


def test_paths_of_sources_are_made_absolute_and_uris_stay() -> None:
    files = ["a/*.jsonl", "s3://bucket/b.parquet", "/c.jsonl"]
    config = with_absolute_paths(validate({"data": {"sources": [{"files": files}]}}))
    assert config.data.sources[0].files == [f"{Path.cwd()}/a/*.jsonl", *files[1:]]


def test_paths_of_tables_are_made_absolute() -> None:
    task = {"name": "hitab", "options": {"tables": ["a.jsonl", "/b.jsonl"], "format": "html"}}
    config = with_absolute_paths(validate({"task": task}))
    tables = [f"{Path.cwd()}/a.jsonl", "/b.jsonl"]
    assert config.task.options == {"tables": tables, "format": "html"}
    for other in ({}, {"tables": 3}):  # whatever it means to another task
        task = {"name": "mine", "options": other}
        assert with_absolute_paths(validate({"task": task})).task.options == other


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"shuffle": "window"}, False),
        ({"window_blocks": 3}, False),
        ({"fragment_bytes": 3}, False),
        ({"bad_rows": "skip"}, False),
        ({"sources": [{"files": ["a.jsonl"], "weight": 2}]}, False),
        ({"sources": [{"files": ["b.jsonl"], "weight": 1}]}, True),
        ({"rows_per_block": 3}, True),
    ],
)
def test_what_decides_the_order_is_part_of_a_runs_identity(
    changed: dict[str, Any], same: bool
) -> None:
    def of(data: dict[str, Any]) -> dict[str, Any]:
        plain = {"sources": [{"files": ["a.jsonl"], "weight": 1}]}
        return identity(validate({"data": {**plain, **data}}).model_dump())

    assert (of(changed) == of({})) == same
    assert of({}) != identity(load_config().model_dump())
