r"""HiTab: questions over hierarchical tables, with one or several answers.

Fields `table_id`, `question` and `answer` (a list of numbers and names); the tables are files of
their own, `task.options.tables`.

Accuracy is the share of questions with all answers right and none too many. The figures
`precision`, `recall` and `f1` count answers over all questions (micro averages). What StableDLLM's
evaluation calls accuracy is our recall; its tolerance, 0.01, is ours.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field

from raymdm.config.data import TaskSection
from raymdm.config.section import Section
from raymdm.errors import DataError
from raymdm.tasks.answer_lists import SEPARATOR, list_answer, match_answers
from raymdm.tasks.options import read_options
from raymdm.tasks.spec import Example, TaskSpec
from raymdm.tasks.tables import TableFile, as_html, as_markdown, read_tables, table_files
from raymdm.tasks.template import fill_template, nearest, templates, text_field

PROMPT = (
    "{table}\nQuestion: {question}\nPut the answer in \\boxed{{}}; separate several answers by |.\n"
)
RESPONSE = "\\boxed{{{answers}}}"
DELIMITER = r"\\boxed\{"
HTML_TAGS = r"(?i)</?(table|caption|colgroup|col|thead|tbody|tfoot|tr|td|th)\b[^>]*>"
FIGURES = {
    "precision": ("right", "predicted"),
    "recall": ("right", "gold"),
    "f1": ("twice_right", "predicted_and_gold"),
}
_WRITERS = {"html": as_html, "markdown": as_markdown}


class Options(Section):
    """How rows are read and scored."""

    tables: list[str] = Field(default=[])
    """JSONL files of the tables, those of all splits that are read."""
    format: Literal["html", "markdown"] = "html"
    """How a table is written in the prompt; Markdown repeats merged cells, HTML spans them."""
    tolerance: float = Field(default=0.01, ge=0)
    """Numbers that differ by less are equal."""


def make(section: TaskSection) -> TaskSpec:
    """The task. The templates know `{table}` (its title included), `{title}`, `{answers}` and the
    row's own fields.

    Raises:
        ConfigurationError: an unknown option or a broken template.
    """
    options = read_options(section, Options)
    prompt, response = templates(section, PROMPT, RESPONSE)
    paths = tuple(options.tables)

    def example(row: Mapping[str, Any]) -> Example:
        text_field(row, "question")
        gold = _gold(row)
        # Opened at the first row: scoring needs no tables.
        if not paths:
            raise DataError("task.options.tables: name the files that hold the tables")
        files = table_files(paths)
        name = str(row.get("table_id", ""))
        if name not in read_tables(files):
            raise DataError(f"field 'table_id': there is no table {name!r} in {', '.join(paths)}")
        values = {
            **row,
            "table": _written(files, name, options.format),
            "title": read_tables(files)[name].title,
            "answers": SEPARATOR.join(map(str, gold)),
        }
        return Example(
            prompt=fill_template(prompt, values, "task.prompt_template"),
            response=fill_template(response, values, "task.response_template"),
            reference={"answers": gold},
            id=str(row.get("id", "")),
        )

    def counts(text: str, reference: Mapping[str, Any]) -> Mapping[str, float]:
        match = match_answers(list_answer(text) or "", reference["answers"], options.tolerance)
        return {
            "right": float(match.right),
            "twice_right": 2.0 * match.right,
            "predicted": float(match.predicted),
            "gold": float(match.gold),
            "predicted_and_gold": float(match.predicted + match.gold),
        }

    def score(text: str, reference: Mapping[str, Any]) -> float:
        match = match_answers(list_answer(text) or "", reference["answers"], options.tolerance)
        return float(match.is_perfect)

    return TaskSpec(
        "hitab",
        example,
        list_answer,
        score,
        delimiters=(DELIMITER,),
        syntax=(HTML_TAGS,) if options.format == "html" else (),
        counts=counts,
        figures=FIGURES,
        files=paths,
    )


@lru_cache(maxsize=64)
def _written(files: tuple[TableFile, ...], name: str, form: str) -> str:
    """A table as text; most tables have several questions, one after the other."""
    return _WRITERS[form](read_tables(files)[name])


def _gold(row: Mapping[str, Any]) -> list[Any]:
    if "answer" not in row:
        raise DataError(
            f"field 'answer' is missing{nearest('answer', row)}; fields found: {', '.join(row)}"
        )
    gold = row["answer"]
    plain = isinstance(gold, list) and all(
        isinstance(one, str | int | float) and not isinstance(one, bool) for one in gold
    )
    if not plain or not gold:
        raise DataError(f"field 'answer' must be a list of numbers and texts, found {gold!r}")
    return list(gold)
