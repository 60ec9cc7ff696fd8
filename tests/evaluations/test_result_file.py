"""Results that outlive a cut: kept as they come, in order at the end, never mixed with others."""

import json
from pathlib import Path

import pytest

from raymdm.errors import DataError
from raymdm.evaluations.result_file import ResultFile

SETTINGS = {"weights": "w", "decoding": {"steps": 4, "seed": 0}}


def row(number: int) -> dict[str, object]:
    return {"number": number, "text": f"é{number}"}


def keep(path: Path, *numbers: int) -> None:
    """A run that is cut after it has kept these rows."""
    with ResultFile(path, SETTINGS) as file:
        file.append([row(number) for number in numbers])


def test_the_finished_file_has_the_rows_in_order_and_their_settings_beside_it(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    with ResultFile(path, SETTINGS, {"source": "here"}) as file:
        file.append([row(2), row(0)])
        file.append([row(1)])
        assert not path.exists()  # a file that is there is complete
        file.finish()
    assert path.read_text(encoding="utf-8").splitlines() == [
        '{"text": "é0"}',
        '{"text": "é1"}',
        '{"text": "é2"}',
    ]
    beside = json.loads((tmp_path / "out.jsonl.settings.json").read_text())
    assert (beside["settings"], beside["about"]) == (SETTINGS, {"source": "here"})
    assert {p.name for p in tmp_path.iterdir()} == {"out.jsonl", "out.jsonl.settings.json"}


def test_after_a_cut_it_goes_on_with_what_was_kept(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    keep(path, 3, 1)
    keep(path, 0)
    with ResultFile(path, SETTINGS) as file:
        assert set(file.done) == {0, 1, 3}
        assert [r["number"] for r in file.rows()] == [0, 1, 3]
        file.append([row(2)])
        file.finish()
    assert len(path.read_text().splitlines()) == 4


def test_rows_are_on_disk_before_the_next_chunk(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    with ResultFile(path, SETTINGS) as file:
        file.append([row(5)])
        assert '"number": 5' in file.partial.read_text()


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_half_of_a_last_line_is_dropped(tmp_path: Path, cut: int):
    path = tmp_path / "out.jsonl"
    keep(path, 0, 1)
    partial = tmp_path / "out.jsonl.partial"
    partial.write_bytes(partial.read_bytes()[:-cut])
    with ResultFile(path, SETTINGS) as file:
        assert set(file.done) == {0}
        file.append([row(1)])
        file.finish()
    assert [json.loads(line)["text"] for line in path.open()] == ["é0", "é1"]


def test_a_cut_within_the_first_line_begins_again(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    (tmp_path / "out.jsonl.partial").write_text('{"fingerpr')
    with ResultFile(path, SETTINGS) as file:
        assert not file.done
        file.append([row(0)])
    keep(path)
    with ResultFile(path, SETTINGS) as file:
        assert set(file.done) == {0}


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    keep(path, 0)
    with (tmp_path / "out.jsonl.partial").open("a") as file:
        file.write("{broken}\n")
    keep_line = r"out\.jsonl\.partial, line 3: not a row of results; remove the file"
    with pytest.raises(DataError, match=keep_line):
        ResultFile(path, SETTINGS)


@pytest.mark.parametrize("finished", [False, True])
def test_another_configurations_file_is_refused_by_the_key_that_differs(
    tmp_path: Path, finished: bool
):
    path = tmp_path / "out.jsonl"
    with ResultFile(path, SETTINGS) as file:
        file.append([row(0)])
        if finished:
            file.finish()
    other = {**SETTINGS, "decoding": {"steps": 8, "seed": 0}}
    with pytest.raises(DataError, match=r"decoding\.steps is 4 there and 8 here; choose another"):
        ResultFile(path, other)
    with ResultFile(path, SETTINGS, {"source": "may differ"}) as file:
        assert file.complete == finished


def test_a_file_that_is_not_ours_is_never_overwritten(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    path.write_text("precious\n")
    with pytest.raises(DataError, match="is there already"):
        ResultFile(path, SETTINGS)
    assert path.read_text() == "precious\n"
    other = tmp_path / "other.jsonl"
    (tmp_path / "other.jsonl.partial").write_text("{}\n")
    with pytest.raises(DataError, match="is no file of ours"):
        ResultFile(other, SETTINGS)


def test_two_processes_do_not_write_one_file(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    with ResultFile(path, SETTINGS), pytest.raises(DataError, match="another process"):
        ResultFile(path, SETTINGS)


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path):
    with pytest.raises(DataError, match=r"out\.jsonl: cannot be written"):
        ResultFile(tmp_path / "no" / "out.jsonl", SETTINGS)
