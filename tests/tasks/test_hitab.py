import json
from pathlib import Path
from typing import Any

import pytest

from raymdm.config.data import TaskSection
from raymdm.errors import ConfigurationError, DataError
from raymdm.tasks import TaskSpec, get_task
from raymdm.tasks.tables import as_html, as_markdown, read_tables, table_files

TABLE: dict[str, Any] = {
    "table_id": "7",
    "title": "workers & others, 2011",
    "texts": [
        ["group", "east", "", "north"],
        ["", "a | b", "c < d", "e"],
        ["food", "52.1", "60.6", "1,055.0"],
        ["", "35.3", "", ""],
    ],
    "merged_regions": [
        {"first_row": 0, "last_row": 1, "first_column": 0, "last_column": 0},
        {"first_row": 0, "last_row": 0, "first_column": 1, "last_column": 2},
        {"first_row": 3, "last_row": 3, "first_column": 0, "last_column": 1},
    ],
    "top_header_rows_num": 2,
    "left_header_columns_num": 1,
}
ROW: dict[str, Any] = {"table_id": "7", "question": "which?", "answer": [52.1, "east"]}


def write(folder: Path, *tables: dict[str, Any], name: str = "tables.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(table) + "\n" for table in tables))
    return str(path)


def read(folder: Path, **changed: Any) -> Any:
    path = write(folder, TABLE | changed, name=f"{len(list(folder.iterdir()))}.jsonl")
    return read_tables(table_files([path]))["7"]


def the_task(folder: Path, **options: Any) -> TaskSpec:
    tables = [write(folder, TABLE)]
    return get_task(TaskSection(name="hitab", options={"tables": tables, **options}))


def test_merged_cells_are_spans_in_html(tmp_path: Path) -> None:
    assert as_html(read(tmp_path)) == (
        "<table>\n"
        "<caption>workers &amp; others, 2011</caption>\n"
        '<tr><th rowspan="2">group</th><th colspan="2">east</th><th>north</th></tr>\n'
        "<tr><th>a | b</th><th>c &lt; d</th><th>e</th></tr>\n"
        "<tr><th>food</th><td>52.1</td><td>60.6</td><td>1,055.0</td></tr>\n"
        '<tr><th colspan="2">35.3</th><td></td><td></td></tr>\n'
        "</table>"
    )


def test_merged_cells_are_repeated_in_markdown(tmp_path: Path) -> None:
    assert as_markdown(read(tmp_path)) == (
        "workers & others, 2011\n"
        "\n"
        "| group | east | east | north |\n"
        "| --- | --- | --- | --- |\n"
        "| group | a \\| b | c < d | e |\n"
        "| food | 52.1 | 60.6 | 1,055.0 |\n"
        "| 35.3 | 35.3 |  |  |"
    )


@pytest.mark.parametrize(
    "regions",
    [
        [],
        [{"first_row": 9, "last_row": 9, "first_column": 0, "last_column": 1}],
        [{"first_row": 1, "last_row": 1, "first_column": 1, "last_column": 1}],
        # Several texts in it: none may get lost.
        [{"first_row": 2, "last_row": 2, "first_column": 1, "last_column": 3}],
    ],
)
def test_regions_that_merge_nothing_leave_every_cell(
    tmp_path: Path, regions: list[dict[str, int]]
) -> None:
    text = as_html(read(tmp_path, merged_regions=regions))
    assert "span" not in text
    assert text.count("<th>") + text.count("<td>") == 16


def test_of_overlapping_regions_the_first_counts_and_edges_are_cut(tmp_path: Path) -> None:
    first = {"first_row": 0, "last_row": 0, "first_column": 1, "last_column": 2}
    other = {"first_row": 0, "last_row": 1, "first_column": 2, "last_column": 2}
    beyond = {"first_row": 3, "last_row": 9, "first_column": 2, "last_column": 9}
    text = as_html(read(tmp_path, merged_regions=[first, other, beyond]))
    assert text.count("span") == 2
    assert "c &lt; d" in text
    assert '<th colspan="2">east</th>' in text
    assert '<td colspan="2"></td></tr>\n</table>' in text


def test_short_rows_are_filled_up(tmp_path: Path) -> None:
    text = as_markdown(read(tmp_path, texts=[["a"], ["b", "c"]], merged_regions=[]))
    assert text.splitlines()[2:] == ["| a |  |", "| --- | --- |", "| b | c |"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "tables.jsonl, line 1: not a table"),
        ("[]", "tables.jsonl, line 1: not a table"),
        ('{"table_id": "7"}', "tables.jsonl, line 1: field 'texts' of a table is missing"),
        ('{"table_id": "7", "texts": []}', "line 1: not a table"),
        ('{"texts": [["a"]]}', "field 'table_id' of a table is missing"),
    ],
)
def test_broken_tables(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "tables.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_tables(table_files([str(path)]))


def test_missing_files_and_ids_that_come_twice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"task\.options\.tables: .*none\.jsonl cannot be read"):
        table_files([str(tmp_path / "none.jsonl")])
    same = write(tmp_path, TABLE, TABLE, name="same.jsonl")
    assert list(read_tables(table_files([same]))) == ["7"]
    other = write(tmp_path, TABLE, TABLE | {"title": "x"}, name="other.jsonl")
    with pytest.raises(DataError, match=r"other\.jsonl, line 2: a second table '7'"):
        read_tables(table_files([other]))


def test_example(tmp_path: Path) -> None:
    task = the_task(tmp_path)
    example = task.example(ROW)
    assert example.prompt.startswith("<table>\n<caption>workers")
    assert "\nQuestion: which?\n" in example.prompt
    assert example.response == r"\boxed{52.1 | east}"
    assert example.reference == {"answers": [52.1, "east"]}
    assert task.score(example.response, example.reference) == 1.0
    assert task.syntax
    markdown = the_task(tmp_path, format="markdown")
    assert markdown.example(ROW).prompt.startswith("workers & others, 2011\n\n| group |")
    assert markdown.syntax == (), "there are no tags to be found"


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    """A process that prepares data may live longer than the file."""
    task = the_task(tmp_path)
    assert "52.1" in task.example(ROW).prompt
    write(tmp_path, {**TABLE, "texts": [["new"], ["cell"]], "merged_regions": []})
    assert "<td>cell</td>" in task.example(ROW).prompt.replace("th>", "td>")


def test_scoring_needs_no_tables() -> None:
    task = get_task("hitab")
    assert task.score(r"\boxed{3}", {"answers": [3]}) == 1.0


def test_figures_are_micro_averages_and_accuracy_is_all_or_nothing(tmp_path: Path) -> None:
    task = the_task(tmp_path)
    assert task.counts is not None
    reference = {"answers": [1, 2, 3]}
    totals: dict[str, float] = {}
    texts = (r"\boxed{3 | 2 | 1}", r"\boxed{1 | 2}", r"\boxed{1 | 2 | 3 | 4}", "no box")
    assert [task.score(text, reference) for text in texts] == [1.0, 0.0, 0.0, 0.0]
    for text in texts:
        for name, count in task.counts(text, reference).items():
            totals[name] = totals.get(name, 0) + count
    figures = {name: totals[above] / totals[below] for name, (above, below) in task.figures.items()}
    precision, recall = 8 / 9, 8 / 12
    assert figures == pytest.approx(
        {
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / (precision + recall),
        }
    )


def test_the_tolerance_is_an_option(tmp_path: Path) -> None:
    reference = {"answers": [52.1]}
    for tolerance, score in ((0.01, 0.0), (0.2, 1.0)):
        task = the_task(tmp_path, tolerance=tolerance)
        assert task.score(r"\boxed{52.2}", reference) == score


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"table_id": "7", "answer": [1]}, "'question' is missing"),
        ({**ROW, "question": ["2016"]}, "'question' must be a text, found list"),
        ({**ROW, "question": " "}, "'question' is empty"),
        ({**ROW, "answer": []}, "'answer' must be a list of numbers and texts, found \\[\\]"),
        ({**ROW, "answer": "52.1"}, "'answer' must be a list"),
        ({**ROW, "answer": [None]}, "'answer' must be a list"),
        ({**ROW, "table_id": "8"}, r"there is no table '8' in .*tables\.jsonl"),
        ({"table_id": "7", "question": "?", "answers": [1]}, "'answer' is missing; did you mean"),
    ],
)
def test_bad_rows(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        the_task(tmp_path).example(row)


def test_without_tables_the_key_is_named() -> None:
    with pytest.raises(DataError, match=r"task\.options\.tables: name the files"):
        get_task("hitab").example(ROW)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": []}, "no option 'table'; did you mean 'tables'"),
        ({"tables": "a.jsonl"}, r"task\.options\.tables"),
        ({"format": "latex"}, r"task\.options\.format: .*'html' or 'markdown'"),
        ({"tolerance": -1}, r"task\.options\.tolerance"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        get_task(TaskSection(name="hitab", options=options))
