"""Prepared rows are checked with file and line, and read back by number."""

import json
from pathlib import Path

import pytest

from raymdm.data.collate import collate
from raymdm.data.jsonl import index_rows
from raymdm.errors import DataError

GOOD = {"input_ids": [5, 6, 7, 1], "prompt_length": 2}


def _write(path: Path, *lines: object) -> Path:
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    return path


def test_rows_come_back_by_sample_number_in_any_order(tmp_path: Path) -> None:
    rows = [{**GOOD, "input_ids": [n, 1, 2]} for n in range(5)]
    index = index_rows(_write(tmp_path / "a.jsonl", rows[0], "", *rows[1:]), 10)
    assert [row["input_ids"][0] for row in index.read([4, 0, 2])] == [4, 0, 2]
    assert len(index) == 5
    assert index.prompt_lengths.tolist() == [2] * 5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"input_ids": [1, 2', "line 2: not valid JSON"),
        ("[1, 2]", "line 2: expected an object, found a list"),
        ({"input_ids": [1, 2]}, "line 2: field 'prompt_length' is missing"),
        ({"prompt_length": 0}, "line 2: field 'input_ids' is missing"),
        ({**GOOD, "input_ids": "abc"}, "line 2: input_ids must be a list of integers"),
        ({**GOOD, "input_ids": [1, 2.5, 3]}, "line 2: input_ids must be a list of integers"),
        ({**GOOD, "input_ids": [1, True, 3]}, "line 2: input_ids must be a list of integers"),
        ({**GOOD, "prompt_length": "2"}, "line 2: prompt_length must be an integer >= 0"),
        ({**GOOD, "prompt_length": -1}, "line 2: prompt_length must be an integer >= 0"),
        ({**GOOD, "prompt_length": 4}, "line 2: prompt_length 4 leaves no response"),
        ({**GOOD, "input_ids": []}, "line 2: prompt_length 2 leaves no response"),
        ({**GOOD, "input_ids": [5, 6, 99]}, "line 2: token id 99 is outside the vocabulary of 10"),
        ({**GOOD, "input_ids": [5, 6, -1]}, "line 2: token id -1 is outside the vocabulary of 10"),
        ({**GOOD, "delimiters": 2}, "line 2: delimiters must be a list of integers"),
        ({**GOOD, "delimiters": [2.0]}, "line 2: delimiters must be a list of integers"),
        ({**GOOD, "syntax": [True]}, "line 2: syntax must be a list of integers"),
        ({**GOOD, "syntax": None}, "line 2: syntax must be a list of integers"),
        ({**GOOD, "delimiters": [2, 1]}, "line 2: delimiters has position 1, outside the response"),
        ({**GOOD, "delimiters": [4]}, r"has position 4, outside the response \(2 <= position < 4"),
        ({**GOOD, "syntax": [-1]}, "line 2: syntax has position -1, outside the prompt"),
        ({**GOOD, "syntax": [1, 2]}, r"has position 2, outside the prompt \(0 <= position < 2"),
    ],
)
def test_a_broken_row_is_named_by_file_and_line(tmp_path: Path, line: object, message: str) -> None:
    path = _write(tmp_path / "train.jsonl", GOOD, line)
    with pytest.raises(DataError, match=message) as caught:
        index_rows(path, 10)
    assert str(path) in str(caught.value)


def test_an_empty_file_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no rows"):
        index_rows(_write(tmp_path / "empty.jsonl", ""), 10)
    with pytest.raises(DataError, match="cannot be read"):
        index_rows(tmp_path / "none.jsonl", 10)


def test_padding_is_hidden_and_only_the_response_is_eligible() -> None:
    rows = collate([[5, 6, 7, 1], [5, 1]], [2, 1], [8, 9], pad_token_id=0, eos_token_id=1)
    assert rows.input_ids.tolist() == [[5, 6, 7, 1], [5, 1, 0, 0]]
    assert rows.attention_mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert rows.eligible.tolist() == [[False, False, True, True], [False, True, False, False]]
    assert rows.response_lengths.tolist() == [2, 1]
    assert rows.samples == [8, 9]


def test_supervised_padding_is_eos_that_belongs_to_the_response() -> None:
    rows = collate(
        [[5, 6, 7, 1], [5, 1]],
        [2, 1],
        [8, 9],
        pad_token_id=0,
        eos_token_id=1,
        pad_supervision="eos",
        max_length=6,
    )
    assert rows.input_ids.tolist() == [[5, 6, 7, 1, 1, 1], [5, 1, 1, 1, 1, 1]]
    assert rows.attention_mask.all()
    assert rows.response_lengths.tolist() == [4, 5]
