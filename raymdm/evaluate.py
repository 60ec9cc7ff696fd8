"""raymdm evaluate RUN_DIR : score a trained model by its task's metric and by its NELBO.

    raymdm evaluate runs/one --set evaluation.limit=64

Writes `items.parquet` (one row per item) and `scores.json` (the figures with the decoding settings
they hold for, at the starting weights and at the end) into the run directory.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

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
from raymdm.config.data import TaskSection
from raymdm.data.collate import collate
from raymdm.data.encoding import load_encoder
from raymdm.data.evaluation import Item, read_items
from raymdm.data.manifest import Manifest, read_manifest
from raymdm.decoding import check_decoding, generate
from raymdm.diffusion import bound
from raymdm.errors import CheckpointError, RunError
from raymdm.models import Backbone, load_model
from raymdm.tasks import TaskSpec, get_task
from raymdm.training import RunDirectory
from raymdm.training.run_directory import read_json, write_json
from raymdm.training.starting import initial_model, model_shape
from raymdm.training.worker import pick_device


@dataclass(frozen=True)
class Evaluation:
    """Scores of one set of weights: the summary, and a table with a row per item."""

    summary: dict[str, Any]
    items: pd.DataFrame


@reports_errors
def main(
    run_dir: Annotated[Path, typer.Argument(help="The folder that `raymdm train` wrote.")],
    config: ConfigFiles = None,
    set_: Overrides = None,
    imports: Imports = None,
    dump_config: DumpConfig = False,
    verbose: Verbose = False,
) -> None:
    """Score a trained model: exact match by its task's metric, and the NELBO.

    Responses are decoded greedily, most confident tokens first (by a causal model from left to
    right), at one fixed length per task (evaluation.decoding.response_length); text after the
    first EOS is dropped. A causal model's NELBO is its exact negative log-likelihood. The starting
    weights are scored under the same settings.

    Example: raymdm evaluate runs/one --set evaluation.limit=64
    """
    run = RunDirectory.existing(run_dir)
    base = run.read_config()
    checked = settings(config, set_, imports, dump_config, base)
    run.check_same(checked)
    scores = evaluate_run(run, checked, progress=True)
    print_scores(run, scores)


def evaluate_run(run: RunDirectory, config: Config, *, progress: bool = False) -> dict[str, Any]:
    """Score a run's model (and its starting weights), write `items.parquet` and `scores.json`.

    Raises:
        CheckpointError: the run has no model.
        DataError: the split has no rows, or they are broken.
    """
    if not run.model.is_dir():
        raise CheckpointError(
            f"{run.path} has no model/ (state: {run.status().get('state', 'unknown')}); train it "
            "to the end with `keep` other than metrics"
        )
    folder = Path(config.data.folder)
    manifest = read_manifest(folder)
    run.check_data(config, manifest.fingerprint)
    split = config.evaluation.split
    config = fixed_decoding(config, manifest)
    items = read_items(folder, manifest, split, config.evaluation.limit)
    final = evaluate_model(load_model(run.model), items, config, manifest, folder, progress)
    status = run.status()
    table = final.items.assign(
        run=run.path.name, arm=status.get("arm", run.path.name), seed=config.seed
    )
    before = None
    if config.evaluation.step0:
        start = initial_model(config, model_shape(config, manifest))
        before = evaluate_model(start, items, config, manifest, folder, progress).summary
    table.to_parquet(run.items, index=False)
    step = read_json(run.model / "training_step.json").get("step")
    scores = {"step0": before, "final": {**final.summary, "step": step}}
    write_json(run.scores, scores)
    return scores


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


def evaluate_model(
    model: Backbone,
    items: list[Item],
    config: Config,
    manifest: Manifest,
    folder: Path,
    progress: bool = False,
) -> Evaluation:
    """Decode and score every item with these weights."""
    started = time.monotonic()
    model = model.to(pick_device(config)).eval()
    # The task as it was when the rows were made: one template for training and evaluation.
    task = get_task(TaskSection.model_validate(manifest.task))
    trust = bool(manifest.prepare.get("trust_remote_code", False))
    tokenizer = load_encoder(folder, trust).tokenizer
    section = config.evaluation
    records: list[dict[str, Any]] = []
    starts = range(0, len(items), section.batch_size)
    for start in track(starts, "scoring", console=Console(stderr=True), disable=not progress):
        batch = items[start : start + section.batch_size]
        responses = generate(model, [item.prompt for item in batch], section.decoding)
        rows = collate(
            [item.input_ids for item in batch],
            [len(item.prompt) for item in batch],
            [item.number for item in batch],
            pad_token_id=manifest.pad_token_id,
            eos_token_id=manifest.eos_token_id,
        ).to(next(model.parameters()).device)
        nats = bound(
            model,
            manifest.mask_token_id,
            rows,
            causal=model.shape.causal,
            exact_up_to=section.nelbo.exact_up_to,
            draws=section.nelbo.draws,
            batch_size=section.batch_size,
        )
        for index, item in enumerate(batch):
            text = decode_response(tokenizer, responses[index], manifest.eos_token_id)
            records.append(
                {
                    "item": item.id,
                    "correct": score_item(task, text, item),
                    "nll": nats.per_row[index],
                    "nll_variance": nats.variance[index],
                    "tokens": int(nats.tokens[index]),
                    "response": text,
                    "answer": task.extract(text),
                }
            )
    table = pd.DataFrame(records)
    seconds = time.monotonic() - started
    return Evaluation(_summary(table, config, task.name, model.shape.causal, seconds), table)


def score_item(task: TaskSpec, text: str, item: Item) -> float:
    """1.0 for a right response, 0.0 for a wrong one. Raises RunError where the scorer fails."""
    try:
        return float(task.score(text, item.reference))
    except Exception as error:
        raise RunError(
            f"task {task.name}: its scorer failed on item {item.id} ({type(error).__name__}: "
            f"{error}); the response was {text!r}"
        ) from error


def fixed_decoding(config: Config, manifest: Manifest) -> Config:
    """The configuration with its response length filled in, from the *training* responses."""
    if config.evaluation.decoding.response_length is not None:
        return config
    longest = manifest.splits["train"].longest_response
    decoding = config.evaluation.decoding.model_copy(update={"response_length": longest})
    evaluation = config.evaluation.model_copy(update={"decoding": decoding})
    return config.model_copy(update={"evaluation": evaluation})


def decode_response(tokenizer: Any, response: list[int], eos_token_id: int) -> str:
    """The text of a response up to its first EOS."""
    if eos_token_id in response:
        response = response[: response.index(eos_token_id)]
    return str(tokenizer.decode(response, skip_special_tokens=True))


def _summary(
    table: pd.DataFrame, config: Config, task: str, causal: bool, seconds: float
) -> dict[str, Any]:
    """The run's figures, with everything they depend on.

    `sampler` and `bound` follow from the kind of model. They are no part of `decoding` and `nelbo`,
    the settings that runs must share to be compared: causal and masked arms may share them.
    """
    tokens = float(table["tokens"].sum())
    accuracy = float(table["correct"].mean())
    return {
        "split": config.evaluation.split,
        "items": len(table),
        "accuracy": accuracy,
        "accuracy_standard_error": float(np.sqrt(accuracy * (1 - accuracy) / len(table))),
        "answers_found": float(table["answer"].notna().mean()),
        "nelbo_per_token": float(table["nll"].sum() / tokens),
        "nelbo_per_sequence": float(table["nll"].mean()),
        "nelbo_standard_error": float(np.sqrt(table["nll_variance"].sum()) / tokens),
        "bound": "exact_likelihood" if causal else "nelbo",
        "nelbo": config.evaluation.nelbo.model_dump(),
        "sampler": "greedy_left_to_right" if causal else "greedy_low_confidence",
        "decoding": config.evaluation.decoding.model_dump(),
        "task": task,
        "seconds": seconds,
    }


def print_scores(run: RunDirectory, scores: dict[str, Any]) -> None:
    """The figures as a table on stdout."""
    final = scores["final"]
    table = Table(title=f"{run.path.name}: {final['task']}, {final['items']} {final['split']} rows")
    exact = final["bound"] == "exact_likelihood"
    figure = "NLL nats/token" if exact else "NELBO nats/token"
    for column in ("weights", "exact match", figure, "answers found"):
        table.add_column(column, justify="left" if column == "weights" else "right")
    for name, score in (("start", scores["step0"]), (f"step {final['step']}", final)):
        if score is not None:
            table.add_row(
                name,
                f"{score['accuracy']:.1%} ± {score['accuracy_standard_error']:.1%}",
                f"{score['nelbo_per_token']:.4f} ± {score['nelbo_standard_error']:.4f}",
                f"{score['answers_found']:.1%}",
            )
    console = Console()
    console.print(table)
    masks = "the NLL is exact" if exact else "of the NELBO's masks"
    console.print(f"± standard errors: over the items; {masks}.  {run.scores}")


if __name__ == "__main__":
    run_as_program(main)
