"""`raymdm prepare`: raw rows -> tokenized JSONL, a manifest and a tokenizer."""

import importlib.metadata
import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from raymdm.cluster import start_ray
from raymdm.command import (
    ConfigFiles,
    DumpConfig,
    Imports,
    Overrides,
    Verbose,
    reports_errors,
    run_as_program,
    settings,
)
from raymdm.config import Config
from raymdm.config.loading import fingerprint
from raymdm.config.paths import with_absolute_tables
from raymdm.data.encoding import check_offsets, choose_template
from raymdm.data.manifest import FORMAT, Manifest, SplitManifest, read_manifest, write_manifest
from raymdm.data.pipeline import Preparation, Progress, first_pages, training_texts
from raymdm.data.report import progress_line, show
from raymdm.data.sources import GeneratedSource, HubSource, Source, file_digest, open_source
from raymdm.data.tokenizer import (
    BYTES,
    SPECIAL_TOKENS,
    complete_tokenizer,
    load_tokenizer,
    train_bpe,
    vocabulary_size,
)
from raymdm.data.work import Work
from raymdm.data.writer import already_prepared, folder_in_the_making
from raymdm.errors import ConfigurationError, DataError
from raymdm.tasks import TaskSpec, get_task

GENERATE = "generate"
TOKENIZER_FOLDER = "tokenizer"
GENERATED_TRAIN_ROWS = 3000
GENERATED_TEST_ROWS = 256
LATER_KEYS = ("max_prompt_length", "train_references")
"""Of the section `prepare`: folders of before they were there keep their fingerprints."""
SHAPING_PACKAGES = ("reasoning-gym", "tokenizers", "transformers")


@reports_errors
def main(
    config: ConfigFiles = None,
    set_: Overrides = None,
    imports: Imports = None,
    dump_config: DumpConfig = False,
    verbose: Verbose = False,
) -> None:
    """Turn raw rows into the tokenized folder that training and evaluation read.

    Rows come from a generated task, a .jsonl or .parquet file, or a Hugging Face data set; the
    folder (data.folder) gets train.jsonl, validation.jsonl, test.jsonl, manifest.json and the
    tokenizer. Rows longer than prepare.max_length are dropped and counted, never cut.

    A folder that is prepared already with the same settings is left as it is. To start from:

      raymdm prepare --config tasks/addition --set data.folder=data/addition

      raymdm prepare --config tasks/gsm8k --set prepare.train=train.jsonl
      --set prepare.test=test.jsonl --set data.folder=data/gsm8k

      raymdm prepare --config tasks/gsm8k --set prepare.tokenizer=GSAI-ML/LLaDA-8B-Instruct
    """
    merged = settings(config, set_, imports, dump_config)
    manifest = prepare(merged, verbose=verbose)
    show(manifest, merged.data.folder, merged.evaluation.decoding.response_length)


def prepare(config: Config, *, verbose: bool = False) -> dict[str, Any]:
    """Prepare `data.folder` and return its manifest; does nothing where that is done already.

    Raises:
        ConfigurationError: an unknown task, option or tokenizer, or keys that do not go together.
        DataError: raw rows that are missing, broken, too few or in both splits; a folder that
            holds something else.
    """
    section = with_absolute_tables(config.task)  # workers run in folders of their own
    task = get_task(section)
    folder = Path(config.data.folder).expanduser().absolute()
    train, test = open_sources(config, task)
    sources = {"train": train.digest()} | ({"test": test.digest()} if test else {})
    mark = fingerprint_of(config, task, sources)
    if already_prepared(folder, mark):
        Console(stderr=True).print(f"{folder} is prepared already, with these settings")
        return read_manifest(folder).model_dump()

    with (
        folder_in_the_making(folder) as making,
        start_ray(config.cluster.address, verbose=verbose),
        progress_line() as progress,
    ):
        logging.getLogger("ray.data").setLevel(logging.INFO if verbose else logging.ERROR)
        work = Work(
            task=section,
            imports=tuple(config.imports),
            search_path=os.getcwd(),
            source=train,
            role="generated" if isinstance(train, GeneratedSource) and test is None else "train",
            validation_fraction=config.prepare.validation_fraction,
            tokenizer=str(making / TOKENIZER_FOLDER),
            max_length=config.prepare.max_length,
            max_prompt_length=config.prepare.max_prompt_length,
            train_references=config.prepare.train_references,
            trust_remote_code=config.prepare.trust_remote_code,
            fingerprint=mark,
        )
        tokenizer = make_tokenizer(config, work, progress)
        check_offsets(tokenizer, task)
        tokenizer.save_pretrained(work.tokenizer)
        work = replace(work, template=choose_template(tokenizer, config.prepare.template))
        splits = write_splits(config, work, test, making, progress)
        manifest = Manifest(
            format=FORMAT,
            fingerprint=mark,
            task=config.task.model_dump(),
            prepare=config.prepare.model_dump(),
            sources=sources,
            versions={name: importlib.metadata.version(name) for name in SHAPING_PACKAGES},
            template=work.template,
            tokenizer=TOKENIZER_FOLDER,
            vocabulary_size=vocabulary_size(tokenizer),
            mask_token_id=tokenizer.mask_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            max_length=config.prepare.max_length,
            splits=splits,
        )
        write_manifest(making, manifest)
    return manifest.model_dump()


def open_sources(config: Config, task: TaskSpec) -> tuple[Source, Source | None]:
    """The source of training rows and that of test rows, where that is another one.

    Raises:
        ConfigurationError: `generate` for a task that has no generator, or for the test rows only.
        DataError: a file that is missing or of a kind that is not read.
    """
    keys = config.prepare
    if keys.test == GENERATE:
        raise ConfigurationError(
            "prepare.test: leave it null; with prepare.train=generate the test is generated too"
        )
    test_name = keys.test
    train: Source
    if keys.train == GENERATE:
        if task.generate is None:
            raise ConfigurationError(
                f"prepare.train: task {task.name} has no generator; give a .jsonl, .parquet or "
                ".csv file or a Hugging Face data set"
            )
        train = GeneratedSource(keys.seed)
    else:
        train = open_source(keys.train, "prepare.train", keys.hub_config, keys.train_split)
        if isinstance(train, HubSource) and test_name is None:
            test_name = keys.train
    if test_name is None:
        return train, None
    return train, open_source(test_name, "prepare.test", keys.hub_config, keys.test_split)


def make_tokenizer(config: Config, work: Work, progress: Progress) -> Any:
    """The tokenizer that the configuration names, or one trained on the training rows."""
    keys = config.prepare
    if keys.tokenizer != "bpe":
        tokenizer = load_tokenizer(keys.tokenizer, keys.trust_remote_code)
        return complete_tokenizer(tokenizer, keys.mask_token)
    texts: Iterable[str] = ()
    if keys.vocabulary_size > BYTES + SPECIAL_TOKENS:  # else there is nothing to learn
        source = work.source
        chunks = (
            source.pages(0, first_pages(*generated_rows(config)))
            if isinstance(source, GeneratedSource)
            else source.chunks()
        )
        texts = training_texts(work, chunks, progress)
    return train_bpe(texts, keys.vocabulary_size, keys.mask_token)


def write_splits(
    config: Config, work: Work, test: Source | None, making: Path, progress: Progress
) -> dict[str, SplitManifest]:
    """Write the three files, the test rows first. Raises as `prepare` does."""
    keys = config.prepare
    preparation = Preparation(making, progress)
    if test is not None:
        preparation.test_file(replace(work, source=test, role="test"), keys.test_rows)
    if isinstance(work.source, GeneratedSource):
        train_rows, test_rows = generated_rows(config)
        preparation.generated(work, train_rows, 0 if test else test_rows)
    else:
        preparation.train_file(work, keys.train_rows)
    splits = preparation.close()
    if not splits["train"].rows:
        raise DataError(
            f"prepare.train: no training rows are left; {splits['train'].dropped_too_long} were "
            f"longer than prepare.max_length ({keys.max_length} tokens){_of_prompts(config)}"
        )
    test_split = splits["test"]
    if test_split.rows and test_split.wrong_by_own_scorer == test_split.rows:
        raise ConfigurationError(
            f"task.response_template: the scorer of {work.task.name} takes none of the "
            f"{test_split.rows} test rows' own responses for right; mend the template"
        )
    return splits


def _of_prompts(config: Config) -> str:
    limit = config.prepare.max_prompt_length
    return "" if limit is None else f", or their prompts than prepare.max_prompt_length ({limit})"


def generated_rows(config: Config) -> tuple[int, int]:
    """Training and test rows of a generated task."""
    return (
        config.prepare.train_rows or GENERATED_TRAIN_ROWS,
        config.prepare.test_rows or GENERATED_TEST_ROWS,
    )


def fingerprint_of(config: Config, task: TaskSpec, sources: dict[str, str]) -> str:
    """Changes with every setting and every source file, and with a tokenizer's folder.

    Of the patterns those count that were searched, the task's own too; a folder without any has the
    fingerprint that it had before there were marks. Likewise keys that came later count where they
    are used.
    """
    tokenizer_files = {}
    folder = Path(config.prepare.tokenizer).expanduser()
    if config.prepare.tokenizer != "bpe" and folder.is_dir():
        tokenizer_files = {p.name: file_digest(str(p)) for p in sorted(folder.glob("*token*"))}
    patterns = {"delimiters": task.delimiters, "syntax": task.syntax}
    section = config.task.model_dump(exclude=set(patterns))
    if task.files:  # by what is in them: they may be called from another folder next time
        section["options"].pop("tables", None)
        section["files"] = [_existing_digest(path) for path in task.files]
    unused = {key for key in LATER_KEYS if not getattr(config.prepare, key)}
    return fingerprint(
        {
            **{field: searched for field, searched in patterns.items() if searched},
            "format": FORMAT,
            "task": section,
            "prepare": config.prepare.model_dump(exclude=unused),
            "sources": sources,
            "tokenizer_files": tokenizer_files,
        }
    )


def _existing_digest(path: str) -> str:
    if not Path(path).is_file():
        raise DataError(f"task.options: file {path} not found")
    return file_digest(path)


if __name__ == "__main__":
    run_as_program(main)
