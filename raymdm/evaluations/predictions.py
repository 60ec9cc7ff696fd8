"""Predictions made elsewhere, with the references they are scored against.

Rows are JSON objects, one a line. A prediction is `response`, `prediction`, `output` or `text`; a
gold row is a raw row of the task, or has a ready `reference`. StableDLLM's files are read as they
are: `gold_raw`, `ground_truth` or `groundtruth` for the gold, `prompt`, `question` or `input` for
the question, `id`, `meta.id` or `meta.index` for the id, and lists of extracted answers.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raymdm.errors import DataError
from raymdm.tasks import TaskSpec

TEXTS = ("response", "prediction", "output", "text")
GOLDS = ("gold_raw", "answer", "output", "ground_truth", "groundtruth", "solution")
QUESTIONS = ("prompt", "question", "input", "problem")
# Where a task may expect the gold: only those that it needs are filled in, the fewest first.
_GOLD_FIELDS: tuple[tuple[str, ...], ...] = (
    (),
    ("answer",),
    ("output",),
    ("solution",),
    ("answer", "output", "solution"),
)


@dataclass(frozen=True)
class Prediction:
    """One prediction that has a gold row."""

    id: str
    text: str
    reference: Mapping[str, Any]


@dataclass(frozen=True)
class Predictions:
    """What two files have in common.

    Attributes:
        items: in the order of the predictions.
        without_gold: predictions that no gold row belongs to; they are not scored.
        without_prediction: gold rows that nothing was predicted for.
    """

    items: list[Prediction]
    without_gold: int
    without_prediction: int


@dataclass(frozen=True)
class _Row:
    place: str
    id: str
    fields: Mapping[str, Any]


def read_predictions(file: Path, gold: Path | None, task: TaskSpec) -> Predictions:
    """Predictions with their references, merged by id, or by index where a file has no ids.

    Args:
        file: the predictions.
        gold: the gold rows; None where the rows of `file` have both.
        task: reads gold rows.

    Raises:
        DataError: a broken or empty file, a row without a prediction or gold, an id that is missing
            in some rows or there twice, or no prediction with gold; names file and line.
    """
    predictions = _read(file)
    if gold is None:
        items = [_merged(row, row, task) for row in predictions]
        return Predictions(items, 0, 0)
    known = {row.id: row for row in _read(gold)}
    items = [_merged(row, known[row.id], task) for row in predictions if row.id in known]
    if not items:
        raise DataError(
            f"{file}: none of its ids (the first is {predictions[0].id!r}) is in {gold} (the first "
            f"is {next(iter(known))!r}); rows without an id count from 0"
        )
    return Predictions(items, len(predictions) - len(items), len(known) - len(items))


def _merged(row: _Row, gold: _Row, task: TaskSpec) -> Prediction:
    field = next((name for name in TEXTS if row.fields.get(name) is not None), None)
    if field is None:
        raise DataError(
            f"{row.place}: no prediction in it; it is read from {', '.join(TEXTS)} (found: "
            f"{', '.join(row.fields) or 'none'})"
        )
    fields = dict(gold.fields)
    if row is gold:
        del fields[field]  # `output` may be either; here it is the prediction
    return Prediction(row.id, _text(row.fields[field]), _reference(fields, gold.place, task))


def _text(prediction: Any) -> str:
    """A prediction as the text of a response; a list of answers as tasks write one."""
    if isinstance(prediction, list):
        return f"\\boxed{{{' | '.join(map(str, prediction))}}}" if prediction else ""
    return str(prediction)


def _reference(fields: Mapping[str, Any], place: str, task: TaskSpec) -> Mapping[str, Any]:
    """What the task scores against: ready, from a raw row, or a bare answer that its scorer takes.

    Raises:
        DataError: none of them; says what the task misses in the row.
    """
    ready = fields.get("reference")
    if isinstance(ready, str) and ready.startswith("{"):
        ready = _parsed(ready, f"{place}, field 'reference'")
    if isinstance(ready, dict):
        return ready
    question, value = _first(fields, QUESTIONS), _first(fields, GOLDS)
    asked = {} if question is None else dict.fromkeys(QUESTIONS, question)
    first: DataError | None = None
    for names in _GOLD_FIELDS:
        try:
            return task.example({**asked, **dict.fromkeys(names, value), **fields}).reference
        except DataError as error:
            first = first or error
    try:
        bare = _bare(value)
        task.score("", bare)
    except Exception:  # scorers fail in their own ways on what is no reference of theirs
        raise DataError(f"{place}: no gold for the task {task.name} in it: {first}") from first
    return bare


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _bare(value: Any) -> dict[str, Any]:
    """A bare answer, or a list, as a reference. Raises DataError for none, or for several lists."""
    if value is None:
        raise DataError("it has no gold answer")
    if not isinstance(value, list):
        return {"answer": str(value)}
    if value and isinstance(value[0], list):  # alternatives, in StableDLLM's files just one
        if len(value) > 1:
            raise DataError("it has several lists of gold answers, and one is needed")
        value = value[0]
    return {"answers": value}


def _read(path: Path) -> list[_Row]:
    """Rows with their ids; their indices where no row has one."""
    rows: list[_Row] = []
    seen: dict[str, str] = {}
    named: bool | None = None
    for index, (place, fields) in enumerate(_objects(path)):
        name = _id(fields)
        if named is None:
            named = name is not None
        if named != (name is not None):
            raise DataError(
                f"{place}: {'no id' if named else 'an id'}, unlike the rows before it; give all "
                "rows an id, or none"
            )
        name = str(index) if name is None else name
        if name in seen:
            raise DataError(f"{place}: the id {name!r} is there twice, first at {seen[name]}")
        seen[name] = place
        rows.append(_Row(place, name, fields))
    if not rows:
        raise DataError(f"{path}: the file has no rows")
    return rows


def _id(fields: Mapping[str, Any]) -> str | None:
    meta = fields.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    found = (fields.get("id"), meta.get("id"), meta.get("index"))
    return next((str(name) for name in found if name is not None), None)


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                place = f"{path}, line {number}"
                fields = _parsed(line, place)
                if not isinstance(fields, dict):
                    raise DataError(f"{place}: expected an object, found {type(fields).__name__}")
                yield place, fields
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _parsed(text: str | bytes, place: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{place}: not valid JSON ({error}); mend the line") from error
