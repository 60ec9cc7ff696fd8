"""Variance times cost of every estimator on a trained tiny model, at several response lengths."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from raymdm.benchmarks.request import Report, Request
from raymdm.cluster import start_ray
from raymdm.config import Config, merge_overlay
from raymdm.config.loading import validate
from raymdm.config.paths import with_absolute_paths
from raymdm.errors import RunError
from raymdm.prepare import prepare
from raymdm.training import RunDirectory
from raymdm.training.job import make_job
from raymdm.training.launch import run_in_process
from raymdm.variance import measured
from raymdm.variances.figures import Figure, Figures, Measured

_BASE: dict[str, Any] = {
    "model": {"hidden_size": 64, "layers": 2, "heads": 4},
    "training": {
        "batch_size": 16,
        "steps": 1500,
        "learning_rate": 2e-3,
        "warmup_steps": 50,
        "validation_rows": 64,
    },
    "variance": {"rows": 48, "batches": 256},
    "cluster": {"address": "local"},
}
# Lists of two-digit numbers to sort, byte by byte: `[42.0, 17.0]` has 6 tokens a number.
_SORTING: dict[str, Any] = {
    "task": {
        "name": "reasoning_gym:number_sorting",
        "prompt_template": "{direction} {original_numbers}\n",
        "response_template": "[{sorted_numbers}]",
        # Stand-ins, so that ISAD and SyRM have something to work on.
        "delimiters": [r"\["],
        "syntax": ["ascending|descending"],
    },
    "prepare": {"train_rows": 2000, "test_rows": 16, "vocabulary_size": 259, "max_length": 256},
}
_SUMS: dict[str, Any] = {
    "task": {
        "name": "reasoning_gym:basic_arithmetic",
        "prompt_template": "{expression}=",
        "delimiters": [r"^\d"],
        "syntax": [r"\+"],
        "options": {
            "min_terms": 2,
            "max_terms": 2,
            "min_digits": 4,
            "max_digits": 4,
            "operators": ["+"],
            "allow_parentheses": False,
            "allow_negation": False,
        },
    },
    "prepare": {"train_rows": 2000, "test_rows": 16, "vocabulary_size": 259, "max_length": 32},
}


def _sorting(numbers: int) -> dict[str, Any]:
    options = {
        "min_numbers": numbers,
        "max_numbers": numbers,
        "min_decimals": 0,
        "max_decimals": 0,
        "min_value": 10,
        "max_value": 99,
    }
    return merge_overlay(_SORTING, {"task": {"options": options}})


DATA: dict[str, dict[str, Any]] = {"5": _SUMS, "20": _sorting(3), "80": _sorting(13)}
"""Generated tasks by their response length in tokens, about: sums, and lists to be sorted."""


def bench(request: Request) -> Report:
    """Figures of the generated tasks, or of the prepared data that was named."""
    place = {"run_dir": f"{request.folder}/run", "data": {"folder": f"{request.folder}/data"}}
    found = measure_estimators(
        request.settings({**_BASE, **place}),
        request.folder,
        Console(stderr=True).print,
        verbose=request.verbose,
    )
    return Report(
        [table(title, figures) for title, figures in found.items()],
        {title: figures.model_dump() for title, figures in found.items()},
    )


def table(title: str, figures: Figures) -> Table:
    """Every estimator against Standard on one data set."""
    made = Table(
        title=f"{title}: {figures.response_tokens:.1f} response tokens, {figures.batch_size} rows",
        caption="N × variance of a batch, relative to Standard; 95% intervals; * another objective",
    )
    for column in (
        "estimator",
        "loss/step",
        "gradient/step",
        "gradient/forward",
        "gradient over optimum",
    ):
        made.add_column(column, justify="left" if column == "estimator" else "right")
    best = min(
        (row for row in figures.estimators if row.same_objective),
        key=lambda row: row.gradient.forward.value,
    )
    for row in figures.estimators:
        made.add_row(*_cells(row), style="bold" if row is best else None)
    return made


def _cells(row: Measured) -> list[str]:
    optimum = row.gradient.of_optimum
    return [
        row.name if row.same_objective else f"{row.name} *",
        _interval(row.loss.step),
        _interval(row.gradient.step),
        _interval(row.gradient.forward),
        "–" if optimum is None else f"{_interval(optimum)} {row.limit}",
    ]


def _interval(figure: Figure) -> str:
    return f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]"


def measure_estimators(
    config: Config, folder: Path, told: Callable[[str], None], *, verbose: bool = False
) -> dict[str, Figures]:
    """Train a tiny model by Standard on each data set, then measure every estimator on it.

    Args:
        config: model, training and `variance` section; its data is replaced unless it names a
            prepared folder that is there.
        folder: for data and runs.
        told: what is being done.
        verbose: show Ray's logs.

    Returns:
        Figures by the name of the data set.

    Raises:
        RunError: the training diverged.
    """
    figures = {}
    with start_ray(config.cluster.address, verbose=verbose):
        for name, prepared in _data(config, folder, told, verbose).items():
            told(f"n = {name}: training")
            content = {
                "run_dir": str(folder / f"run-{name}"),
                "data": {"folder": str(prepared)},
                "keep": "last",
            }
            run_config = validate(merge_overlay(config.model_dump(), content))
            trained = _train(run_config)
            told(f"n = {name}: measuring")
            start = {"model": {"init_from": str(trained)}}
            checked = validate(merge_overlay(run_config.model_dump(), start))
            figures[name] = measured(
                checked, Path(run_config.run_dir) / "variance", verbose=verbose
            )
    return figures


def _data(
    config: Config, folder: Path, told: Callable[[str], None], verbose: bool
) -> dict[str, Path]:
    """The prepared folders by name: the user's one, or the generated tasks."""
    given = Path(config.data.folder)
    if (given / "manifest.json").exists():
        return {given.name: given}
    folders = {}
    for name, task in DATA.items():
        told(f"n = {name}: preparing")
        place = {"data": {"folder": str(folder / f"data-{name}")}}
        overlay = merge_overlay(task, place)
        prepare(
            with_absolute_paths(validate(merge_overlay(config.model_dump(), overlay))),
            verbose=verbose,
        )
        folders[name] = folder / f"data-{name}"
    return folders


def _train(config: Config) -> Path:
    job = make_job(config, RunDirectory(config.run_dir))
    run = RunDirectory.open(config, job.manifest.fingerprint, resume=False)
    outcome = run_in_process(job)
    if outcome.state != "finished":
        raise RunError(f"bench: training {run.path} ended as {outcome.state}: {outcome.message}")
    return run.model
