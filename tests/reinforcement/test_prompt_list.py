"""The file that says which prompts to train on."""

from pathlib import Path

import pytest

from raymdm.data.evaluation import Item
from raymdm.errors import DataError
from raymdm.reinforcement.prompt_list import read_prompt_list

ITEMS = [Item(number, f"row-{number}", [1], [1, 2], {}) for number in range(5)]


def read(folder: Path, *lines: str) -> list[int]:
    path = folder / "list.jsonl"
    path.write_text("".join(line + "\n" for line in lines))
    return read_prompt_list(path, ITEMS)


def test_a_list_names_rows_by_their_numbers(tmp_path: Path):
    rows = ('{"number": 4, "id": "row-4", "first_right": 2, "steps": 8}', "", '{"number": 1}')
    assert read(tmp_path, *rows) == [4, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"number": 1', r"line 2: not valid JSON"),
        ("[1]", r'line 2: not a row such as {"number": 12}'),
        ('{"id": "row-1"}', r"line 2: not a row"),
        ('{"number": true}', r"line 2: not a row"),
        ('{"number": 5}', r"line 2: there is no training row 5 \(from 0, of 5\)"),
        ('{"number": -1}', r"line 2: there is no training row -1"),
        ('{"number": 1, "id": "row-2"}', r"line 2: training row 1 is 'row-1', not 'row-2'"),
        ('{"number": 0}', r"line 2: row 0 is in line 1 already"),
    ],
)
def test_a_wrong_line_is_named(line: str, message: str, tmp_path: Path):
    with pytest.raises(DataError, match=message):
        read(tmp_path, '{"number": 0}', line)


def test_a_missing_or_empty_list_says_what_to_do(tmp_path: Path):
    with pytest.raises(DataError, match="no prompts are in the list; train without it"):
        read(tmp_path, "")
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read .*`raymdm rl filter` writes"):
        read_prompt_list(tmp_path / "none.jsonl", ITEMS)
