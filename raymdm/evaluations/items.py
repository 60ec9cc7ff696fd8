"""The rows to be scored: of a prepared split (`raymdm.data.evaluation`), or a task's raw rows."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice

from raymdm.config import Config
from raymdm.data.encoding import Encoder
from raymdm.data.evaluation import Item
from raymdm.data.schema import prompt_key, reference_text, split_of
from raymdm.data.sources import GeneratedSource, Row, open_source
from raymdm.errors import ConfigurationError, DataError
from raymdm.tasks import Example, TaskSpec

GENERATE = "generate"
"""Name of the rows that a task makes itself."""
GENERATED_ROWS = 256
"""So many of them, where `evaluation.limit` does not say."""
_MOST_PAGES = 50


def raw_items(rows: str, task: TaskSpec, encoder: Encoder, config: Config) -> list[Item]:
    """A task's raw rows as items, with the prompt template of the model that is asked.

    A row's place in the file is its sample number, the address of its noise. Generated rows are
    those of the test split that `raymdm prepare` would make: never trained on.

    Args:
        rows: a .jsonl, .csv or .parquet file, a hub id, or `generate`.
        task: makes prompts and references of them.
        encoder: of the model.
        config: `evaluation.limit`, and the hub's `prepare.hub_config` and `prepare.test_split`.

    Raises:
        DataError: a file that is missing or empty, or a row that the task cannot read.
        ConfigurationError: `generate` of a task that generates none.
    """
    if rows == GENERATE:
        found = _generated(task, config, encoder)
    else:
        prepare = config.prepare
        source = open_source(rows, "--rows", prepare.hub_config, prepare.test_split)
        read = (row for chunk in source.chunks() for row in source.read(chunk, task))
        found = (_example(row, task, encoder) for row in islice(read, config.evaluation.limit))
    examples = list(found)
    prompts = encoder.prompts([example.prompt for example in examples])
    responses = encoder.responses([example.response for example in examples])
    return [
        Item(number, example.id, prompt, prompt + response, _plain(example))
        for number, (example, prompt, response) in enumerate(
            zip(examples, prompts, responses, strict=True)
        )
    ]


def _generated(task: TaskSpec, config: Config, encoder: Encoder) -> Iterator[Example]:
    if task.generate is None:
        raise ConfigurationError(f"--rows generate: the task {task.name} makes no rows of its own")
    wanted = config.evaluation.limit or GENERATED_ROWS
    source, seen = GeneratedSource(config.prepare.seed), set[bytes]()
    for page in count():
        if page == _MOST_PAGES:
            raise DataError(
                f"task {task.name} gave {len(seen)} distinct test problems in {page} pages, wanted "
                f"{wanted}; ask for fewer with evaluation.limit, or widen task.options"
            )
        for row in source.read(source.pages(page, 1)[0], task):
            example = _example(row, task, encoder)
            key = prompt_key(example.prompt)
            if key not in seen and split_of(key, "generated", 0.0) == "test":
                seen.add(key)
                yield example
                if len(seen) == wanted:
                    return


def _example(row: Row, task: TaskSpec, encoder: Encoder) -> Example:
    try:
        example = task.example(row.fields)
        encoder.refuse_special(example.prompt, "prompt")
    except DataError as error:
        raise DataError(f"{row.place}: {error}") from error
    return example if example.id else replace(example, id=row.id)


def _plain(example: Example) -> dict[str, object]:
    """The reference as it would come out of a prepared file."""
    return dict(json.loads(reference_text(dict(example.reference))))
