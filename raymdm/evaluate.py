"""raymdm evaluate MODEL : score a model by a task's metric and by its NELBO.

    raymdm evaluate runs/one --set evaluation.limit=64
    raymdm evaluate exported/one -c tasks/math500 --rows math500/test.jsonl --out scored/math500
    raymdm evaluate runs/one --lm-eval arc_easy --lm-eval my_task --include-path tasks/
    raymdm evaluate -c tasks/gsm8k --predictions theirs.jsonl --gold gsm8k/test.jsonl

Writes `items.parquet` (one row per item), `scores.json` (the figures with the sampler's full
settings), `report.html`, and a page per traced item into the run directory, or into `--out`.
"""

from pathlib import Path
from typing import Annotated

import typer

from raymdm.command import (
    ConfigFiles,
    DumpConfig,
    Imports,
    Overrides,
    Verbose,
    check_place,
    reports_errors,
    run_as_program,
    settings,
)
from raymdm.config import Config
from raymdm.errors import ConfigurationError
from raymdm.evaluations.elsewhere import evaluate_predictions
from raymdm.evaluations.harness import require_harness, run_harness
from raymdm.evaluations.pages import write_page
from raymdm.evaluations.report import Report, write_report
from raymdm.evaluations.run import Evaluation, evaluate_rows, evaluate_run
from raymdm.evaluations.settings import fixed_decoding
from raymdm.evaluations.show import print_harness, print_scores
from raymdm.evaluations.subject import is_run, open_subject
from raymdm.training import RunDirectory
from raymdm.training.engine_run import pick_device
from raymdm.training.run_directory import write_json


@reports_errors
def main(
    model: Annotated[
        str | None,
        typer.Argument(
            help="What is scored: the folder that `raymdm train` wrote, a model folder, or a hub "
            "id.",
            show_default=False,
        ),
    ] = None,
    config: ConfigFiles = None,
    set_: Overrides = None,
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Raw rows of the task in the configuration instead of the run's own test rows: a "
            ".jsonl, .csv or .parquet file, a hub id, or `generate`.",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Score these responses, made elsewhere; no model."),
    ] = None,
    gold: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The task's rows that `--predictions` answer, by id or by place."
        ),
    ] = None,
    lm_eval: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK", help="Score on this task of lm-evaluation-harness; repeat for more."
        ),
    ] = None,
    include_path: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Task files of your own, for `--lm-eval`.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Where the results go; a run's own rows go to the run."
        ),
    ] = None,
    imports: Imports = None,
    dump_config: DumpConfig = False,
    verbose: Verbose = False,
) -> None:
    """Score a model: the task's metric with its standard error, and the NELBO.

    A run is scored on the test rows of its prepared data, together with its starting weights under
    the same settings; any model on raw rows of a task (`-c tasks/math500 --rows FILE`), with the
    prompt template of its tokenizer. Responses have one fixed length per task
    (evaluation.decoding.response_length); text after the first EOS is dropped. How they are decoded
    is `evaluation.decoding.…`; the default is greedy, most confident tokens first, and from left to
    right by a causal model, whose NELBO is its exact negative log-likelihood.

    The score does not depend on evaluation.batch_size nor on evaluation.actors (Ray actors that
    share the rows). evaluation.traces=N writes a page for each of the first N items that shows its
    denoising step by step. An evaluation that was interrupted goes on where it stopped.

    `--predictions` scores responses from elsewhere: rows with `response` (or `prediction`,
    `output`), merged with `--gold` by `id`, else by place. `--lm-eval` runs tasks of
    lm-evaluation-harness, likelihoods by NELBO.

    Example: raymdm evaluate runs/one --set evaluation.limit=64 --set evaluation.traces=8
    """
    if (model is None) == (predictions is None):
        raise ConfigurationError(
            "give one of them: a model to be scored (a run directory, model folder or hub id), or "
            "--predictions with responses made elsewhere"
        )
    if model is None:
        checked = settings(config, set_, imports, dump_config)
        assert predictions is not None
        return score_predictions(predictions, gold, checked, out)
    run = RunDirectory(model) if is_run(model) else None
    base = {} if run is None else run.read_config()
    checked = settings(config, set_, imports, dump_config, base)
    if run is not None:
        run.check_same(checked)
    if lm_eval:
        return score_harness(model, lm_eval, include_path, checked, out)
    if rows is None and run is not None and out is None:
        return score_run(run, checked, verbose)
    if rows is None:
        own = f"{model} is no run directory, which would have rows of its own"
        raise ConfigurationError(
            f"{own if run is None else '--out goes with --rows'}: say which rows to score, e.g. "
            "`-c tasks/gsm8k --rows gsm8k/test.jsonl`"
        )
    score_rows(model, rows, checked, out, verbose)


def score_run(run: RunDirectory, config: Config, verbose: bool) -> None:
    """Score a run on its own prepared rows, and report."""
    found = evaluate_run(run, config, progress=True, verbose=verbose)
    show(run.path.name, str(run.path), run.path, found, config.data.folder)


def score_rows(model: str, rows: str, config: Config, out: Path | None, verbose: bool) -> None:
    """Score any model on raw rows, and report."""
    subject = open_subject(model, config)
    folder = out or default_folder(model, config.task.name)
    check_place("--out", folder)
    found = evaluate_rows(subject, rows, config, folder, progress=True, verbose=verbose)
    show(Path(model).name, model, folder, found, rows)


def score_predictions(
    predictions: Path, gold: Path | None, config: Config, out: Path | None
) -> None:
    """Score responses from elsewhere, and report."""
    folder = out or Path(f"{predictions.stem}-evaluation-{config.task.name.replace(':', '-')}")
    check_place("--out", folder)
    found = evaluate_predictions(predictions, gold, config, folder)
    show(predictions.name, str(predictions), folder, found, str(gold or predictions))


def default_folder(model: str, task: str) -> Path:
    """Where results go that have no other place: in the run, else beside where the verb runs."""
    name = f"evaluation-{task.replace(':', '-')}"
    return Path(model) / name if is_run(model) else Path(f"{Path(model).name}-{name}")


def show(name: str, model: str, folder: Path, found: Evaluation, data: str = "") -> None:
    """The figures on the terminal, and the pages in the folder."""
    final = found.summary
    trained = f"step {final['step']}" if final.get("step") is not None else name
    weights = {"start": found.start, trained: final}
    scores = {each: score for each, score in weights.items() if score}
    for page, text in found.pages.items():
        write_page(folder / "traces" / page, text)
    items = found.items
    traces = {}
    if "page_name" in items:
        traced = items[items["page_name"].notna()]
        traces = {
            item: f"traces/{page}"
            for item, page in zip(traced["item"], traced["page_name"], strict=True)
        }
    report = Report(name, model, scores, items, data, traces)
    written = write_report(folder, report)
    title = f"{name}: {final['task']}, {final['items']} rows of {final['split']}"
    print_scores(title, scores, written)


def score_harness(
    model: str,
    tasks: list[str],
    include_path: Path | None,
    config: Config,
    out: Path | None,
) -> None:
    """Score a model on tasks of lm-evaluation-harness, and report."""
    folder = out or default_folder(model, "lm-eval")
    check_place("--out", folder)
    require_harness()
    subject = open_subject(model, config)
    section = fixed_decoding(config, subject.manifest).evaluation
    results = run_harness(
        subject.load(pick_device(config)),
        subject.encoder,
        [task for given in tasks for task in given.split(",")],
        section.decoding,
        section.nelbo,
        limit=section.limit,
        include_path=include_path,
        batch_size=section.batch_size,
        trust_remote_code=config.prepare.trust_remote_code,
        progress=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", results)
    print_harness(Path(model).name, results, folder / "results.json")


if __name__ == "__main__":
    run_as_program(main)
