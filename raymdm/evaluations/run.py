"""Score a run on its prepared split, or any model on raw rows of a task; write what was found."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from raymdm.config import Config
from raymdm.config.data import TaskSection
from raymdm.config.loading import fingerprint
from raymdm.data.evaluation import Item, read_items
from raymdm.data.manifest import read_manifest
from raymdm.decoding import check_decoding
from raymdm.errors import CheckpointError
from raymdm.evaluations.items import raw_items
from raymdm.evaluations.pool import run_chunks
from raymdm.evaluations.result_file import ResultFile
from raymdm.evaluations.scoring import Record, Scoring
from raymdm.evaluations.settings import fixed_decoding, with_evaluation
from raymdm.evaluations.subject import Subject, open_subject
from raymdm.evaluations.summary import sampler_settings, summarize
from raymdm.progress import counting
from raymdm.tasks import get_task
from raymdm.training import RunDirectory
from raymdm.training.run_directory import read_json, write_json

KEPT = "evaluation-{}.jsonl"
"""In the folder of the results: the file in which records are kept until all are there."""
_UNSEEN: AbstractContextManager[Callable[[int], None]] = nullcontext(lambda more: None)


@dataclass(frozen=True)
class Evaluation:
    """Scores of one set of weights.

    Attributes:
        summary: the figures.
        items: a row per item.
        pages: of the items that were traced: file name -> text.
        start: the figures of the starting weights, where they were scored.
    """

    summary: dict[str, Any]
    items: pd.DataFrame
    pages: dict[str, str]
    start: dict[str, Any] | None = None


def evaluate_run(
    run: RunDirectory, config: Config, *, progress: bool = False, verbose: bool = False
) -> Evaluation:
    """Score a run's model (and its starting weights) on a split of its prepared data.

    Writes `items.parquet` and `scores.json` into the run directory.

    Raises:
        CheckpointError: the run has no model.
        DataError: the split has no rows, or they are broken.
    """
    subject = open_subject(str(run.path), config)
    manifest = subject.manifest
    assert manifest is not None
    folder = Path(config.data.folder)
    config = fixed_decoding(config, manifest)
    split = config.evaluation.split
    items = read_items(folder, manifest, split, config.evaluation.limit)
    scoring = Scoring(str(run.path), config, TaskSection.model_validate(manifest.task))
    told = {"progress": progress, "verbose": verbose}
    final = evaluate_items(scoring, subject, items, split, run.path, **told)
    before = None
    if config.evaluation.step0:
        start = replace(scoring, config=with_evaluation(config, traces=0), start=True)
        before = evaluate_items(start, subject, items, split, run.path, **told)
    status = run.status()
    table = final.items.assign(
        run=run.path.name, arm=status.get("arm", run.path.name), seed=config.seed
    )
    step = read_json(run.model / "training_step.json").get("step")
    found = replace(
        final,
        summary={**final.summary, "step": step},
        items=table,
        start=None if before is None else before.summary,
    )
    write_scores(run.path, found)
    return found


def evaluate_rows(
    subject: Subject,
    rows: str,
    config: Config,
    folder: Path,
    *,
    progress: bool = False,
    verbose: bool = False,
) -> Evaluation:
    """Score any model on a task's raw rows.

    Writes `items.parquet` and `scores.json` into the folder, which is made where it is missing.

    Args:
        subject: the model.
        rows: as for `raw_items`.
        config: `task` says whose rows they are.
        folder: for the results.
        progress: show it.
        verbose: show Ray's logs.

    Raises:
        DataError: the rows are missing or broken.
        ConfigurationError: no response length is known.
    """
    config = fixed_decoding(config, subject.manifest)
    check_decoding(config.evaluation.decoding, causal=subject.shape.causal)
    items = raw_items(rows, get_task(config.task), subject.encoder, config)
    folder.mkdir(parents=True, exist_ok=True)
    scoring = Scoring(subject.source, config, config.task)
    found = evaluate_items(
        scoring, subject, items, rows_name(rows), folder, progress=progress, verbose=verbose
    )
    write_scores(folder, found)
    return found


def evaluate_items(
    scoring: Scoring,
    subject: Subject,
    items: Sequence[Item],
    rows: str,
    folder: Path,
    *,
    progress: bool,
    verbose: bool,
) -> Evaluation:
    """Score items, chunk by chunk; what an interrupted evaluation finished is not done again.

    Args:
        scoring: how.
        subject: what `scoring` names, opened.
        items: which.
        rows: what they are called.
        folder: of the results; chunks that are finished are kept there until all are.
        progress: show it.
        verbose: show Ray's logs.
    """
    started = time.monotonic()
    identity = scoring.identity(subject, items)
    # Named by what it depends on, so that other settings neither read nor trip over it.
    kept = folder / KEPT.format(fingerprint(identity)[:12])
    with ExitStack() as stack:
        file = stack.enter_context(ResultFile(kept, identity))
        left = [item for item in items if item.number not in file.done]
        config = scoring.config
        chunks = run_chunks(
            scoring if config.evaluation.actors else partial(scoring.scorer, subject),
            left,
            config,
            length=lambda item: len(item.input_ids),
            verbose=verbose,
        )
        what = "scoring the start" if scoring.start else "scoring"
        bar = counting(what, len(items), len(items) - len(left)) if progress else _UNSEEN
        advance = stack.enter_context(bar)
        for records in chunks:
            file.append(records)
            advance(len(records))
        records = list(file.rows())
        file.discard()
    return _evaluation(scoring, records, rows, subject, time.monotonic() - started)


def _evaluation(
    scoring: Scoring, records: list[Record], rows: str, subject: Subject, seconds: float
) -> Evaluation:
    pages = {record["page_name"]: record.pop("page") for record in records if "page" in record}
    table = pd.DataFrame(records)
    summary = summarize(
        table,
        sampler_settings(scoring.config.evaluation, subject.shape.causal),
        get_task(scoring.task),
        rows=rows,
        seconds=seconds,
    )
    return Evaluation(summary, table, pages)


def write_scores(folder: Path, found: Evaluation) -> None:
    """`scores.json` and `items.parquet`. Raises CheckpointError where they cannot be written."""
    try:
        found.items.to_parquet(folder / "items.parquet", index=False)
        write_json(folder / "scores.json", {"step0": found.start, "final": found.summary})
    except OSError as error:
        raise CheckpointError(
            f"{folder}: the scores cannot be written ({error.strerror}); make room and evaluate "
            "again"
        ) from error


def check_evaluation(config: Config) -> None:
    """Everything a later evaluation needs, before hours of training.

    Raises:
        UserError: an unknown task, a split without rows to score, decoding that cannot work.
    """
    folder = Path(config.data.folder)
    manifest = read_manifest(folder)
    get_task(TaskSection.model_validate(manifest.task))
    decoding = fixed_decoding(config, manifest).evaluation.decoding
    check_decoding(decoding, causal=config.estimator.objective == "autoregressive")
    read_items(folder, manifest, config.evaluation.split, 1)


def rows_name(rows: str) -> str:
    """What raw rows are called in the scores: the file's name without its folder, or the hub id."""
    path = Path(rows)
    return path.name if path.is_file() else rows
