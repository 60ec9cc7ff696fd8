"""What a Ray task does with chunks of raw rows: examples, token ids, lines of the prepared file."""

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from raymdm.config.data import TaskSection
from raymdm.data.encoding import Encoder, Template, Tokens
from raymdm.data.schema import Role, prompt_key, reference_text, row_line, split_of
from raymdm.data.sources import CHUNK_ROWS, Chunk, Row, Source
from raymdm.data.tokenizer import load_tokenizer
from raymdm.errors import DataError, RaymdmError
from raymdm.tasks import Example, TaskSpec, get_task

LINES = pa.schema(
    [
        ("split", pa.string()),
        ("key", pa.binary()),
        ("id", pa.string()),
        ("line", pa.binary()),  # None where the row is too long
        ("tokens", pa.int64()),
        ("response_tokens", pa.int64()),
        ("wrong", pa.bool_()),
        ("has_delimiters", pa.bool_()),
        ("has_syntax", pa.bool_()),
        ("error", pa.string()),  # the rest of an erroneous row is empty
    ]
)
TEXTS = pa.schema([("text", pa.string()), ("error", pa.string())])


@dataclass(frozen=True)
class Work:
    """All that a task needs; sent to every worker."""

    task: TaskSection
    imports: tuple[str, ...]
    """The user's modules, which may register the task."""
    search_path: str
    """Folder in which those modules were found (the driver's working directory)."""
    source: Source
    role: Role
    validation_fraction: float
    fingerprint: str = ""
    """Of the settings: a worker that lives on must not reuse another run's tokenizer."""
    tokenizer: str = ""
    """Folder of the tokenizer."""
    template: Template = "plain"
    max_length: int = 0
    max_prompt_length: int | None = None
    """Of training and validation rows."""
    train_references: bool = False
    """Whether training rows say what they are scored against."""
    trust_remote_code: bool = False
    text_share: float = 1.0
    """Share of the training rows whose text is returned by `text_tables`."""


@dataclass(frozen=True)
class Placed:
    """An example, where it came from and the split it belongs to."""

    row: Row
    example: Example
    key: bytes
    split: str


def line_tables(batch: dict[str, np.ndarray], work: Work) -> Iterator[pa.Table]:
    """Chunk addresses -> tables of finished lines, in order. The map function of `raymdm prepare`.

    A row that cannot be used ends its chunk with its message in `error`: raised here, it would
    reach the driver wrapped in Ray's own traces, and which one came first would be chance.
    """
    task = _task(work)
    encoder = _encoder(work.tokenizer, work.template, work.trust_remote_code, work.fingerprint)
    for chunk in _chunks(batch):
        rows = _examples(chunk, work, task)
        while group := list(islice(rows, CHUNK_ROWS)):
            yield pa.Table.from_pylist(_lines(group, work, task, encoder), schema=LINES)


def text_tables(batch: dict[str, np.ndarray], work: Work) -> Iterator[pa.Table]:
    """Chunk addresses -> texts of training rows, for a tokenizer to be trained on."""
    task = _task(work)
    for chunk in _chunks(batch):
        rows = _examples(chunk, work, task)
        while group := list(islice(rows, CHUNK_ROWS)):
            texts: list[dict[str, str]] = []
            for placed in group:
                if isinstance(placed, str):
                    texts.append({"error": placed})
                elif placed.split == "train" and _sampled(placed, work.text_share):
                    texts.append({"text": placed.example.prompt})
                    texts.append({"text": placed.example.response})
            yield pa.Table.from_pylist(texts, schema=TEXTS)


def _examples(chunk: Chunk, work: Work, task: TaskSpec) -> Iterator[Placed | str]:
    """Examples of a chunk; the last one may be the message of an error."""
    place = ""
    try:
        for row in work.source.read(chunk, task):
            place = f"{row.place}: "
            example = task.example(row.fields)
            if not example.response:
                raise DataError("the response is empty; a row needs something to learn")
            key = prompt_key(example.prompt)
            yield Placed(row, example, key, split_of(key, work.role, work.validation_fraction))
            place = ""  # what fails now is the reading of the next row, which names its own place
    except RaymdmError as error:
        yield f"{place}{error}"
    except Exception as error:  # the code of a user's task, or of a package
        yield f"{place}task {task.name} failed on this row ({type(error).__name__}: {error})"


def _lines(
    group: list[Placed | str], work: Work, task: TaskSpec, encoder: Encoder
) -> list[dict[str, Any]]:
    """Finished lines of some examples: tokenized together, which is much faster."""
    usable = [placed for placed in group if isinstance(placed, Placed)]
    prompts = encoder.marked_prompts([placed.example.prompt for placed in usable], task.syntax)
    responses = encoder.marked_responses(
        [placed.example.response for placed in usable], task.delimiters
    )
    lines: list[dict[str, Any]] = []
    for placed, prompt, response in zip(usable, prompts, responses, strict=True):
        try:
            encoder.refuse_special(placed.example.prompt, "prompt")
            encoder.refuse_special(placed.example.response, "response")
            lines.append(_line(placed, prompt, response, work, task))
        except RaymdmError as error:
            return [*lines, {"error": f"{placed.row.place}: {error}"}]
        except Exception as error:  # the scorer of a user's task, or of a package
            reason = f"{type(error).__name__}: {error}"
            message = f"task {task.name} cannot score its own response ({reason})"
            return [*lines, {"error": f"{placed.row.place}: {message}"}]
    if isinstance(group[-1], str):
        lines.append({"error": group[-1]})
    return lines


def _line(
    placed: Placed, prompt: Tokens, response: Tokens, work: Work, task: TaskSpec
) -> dict[str, Any]:
    example, start = placed.example, len(prompt.ids)
    tokens = start + len(response.ids)
    fits = tokens <= work.max_length and _prompt_fits(start, placed.split, work)
    row_id = example.id or placed.row.id
    # Training rows are many, and scored in reinforcement learning only.
    scored = placed.split != "train" or work.train_references
    reference = reference_text(example.reference) if scored else None
    wrong = False
    if fits and placed.split == "test":
        # Through JSON, as evaluation will read it: a scorer that needs a tuple shows here.
        wrong = task.score(example.response, json.loads(reference or "{}")) < 1.0
    line = None
    if fits:
        line = row_line(
            prompt.ids + response.ids,
            start,
            row_id,
            reference,
            delimiters=[start + position for position in response.marks],
            syntax=prompt.marks,
        )
    return {
        "split": placed.split,
        "key": placed.key,
        "id": row_id,
        "line": line,
        "tokens": tokens,
        "response_tokens": len(response.ids),
        "wrong": wrong,
        "has_delimiters": bool(response.marks),
        "has_syntax": bool(prompt.marks),
    }


def _prompt_fits(tokens: int, split: str, work: Work) -> bool:
    return split == "test" or work.max_prompt_length is None or tokens <= work.max_prompt_length


def _sampled(placed: Placed, share: float) -> bool:
    """Whether a row is in the sample, by its hash (other bytes than those that split)."""
    return share >= 1.0 or int.from_bytes(placed.key[4:8], "big") / 2**32 < share


def _chunks(batch: dict[str, np.ndarray]) -> list[Chunk]:
    columns = zip(batch["first"], batch["rows"], batch["offset"], strict=True)
    return [Chunk(int(first), int(rows), int(offset)) for first, rows, offset in columns]


def _task(work: Work) -> TaskSpec:
    return _make_task(work.task.model_dump_json(), work.imports, work.search_path)


@lru_cache(maxsize=8)
def _make_task(section: str, imports: tuple[str, ...], search_path: str) -> TaskSpec:
    if imports and search_path not in sys.path:
        sys.path.insert(0, search_path)
    for name in imports:
        importlib.import_module(name)
    return get_task(TaskSection.model_validate_json(section))


@lru_cache(maxsize=2)
def _encoder(folder: str, template: Template, trust_remote_code: bool, fingerprint: str) -> Encoder:
    return Encoder(load_tokenizer(folder, trust_remote_code), template)
