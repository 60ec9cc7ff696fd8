"""raymdm bench NAME : what raymdm itself costs, as ratios and differences within one run.

raymdm bench train
raymdm bench sweep
raymdm bench estimators
"""

import dataclasses
import math
import tempfile
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from raymdm.benchmarks import (
    SweepFigures,
    TrainingFigures,
    measure_estimators,
    measure_sweep,
    measure_training,
)
from raymdm.benchmarks.training import Plan
from raymdm.command import ConfigFiles, Overrides, Verbose, reports_errors, run_as_program, settings
from raymdm.config import read_config
from raymdm.training.run_directory import write_json
from raymdm.variances.figures import Figure, Figures, Measured

_TRAIN = {
    "training": {"batch_size": 16, "learning_rate": 1e-3, "schedule": "constant"},
}
# One arm is enough: every trial costs the same.
_SWEEP = {
    "model": {"hidden_size": 64, "layers": 2, "heads": 4},
    "training": {"batch_size": 64, "steps": 400},
    "sweep": {"arms": {"standard": {}}, "seeds": [0, 1, 2, 3, 4, 5]},
    "cluster": {"address": "local"},
}


_ESTIMATORS = {
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


class Name(str, Enum):
    """The measurements."""

    train = "train"
    sweep = "sweep"
    estimators = "estimators"


@reports_errors
def main(
    name: Annotated[Name, typer.Argument(help="What to measure.", show_default=False)],
    config: ConfigFiles = None,
    set_: Overrides = None,
    blocks: Annotated[
        int, typer.Option(min=1, help="`train`: blocks of two steps timed of each loop.")
    ] = 25,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here too.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Measure raymdm's own cost on this machine.

    `train`: tokens per second of the worker loop (one worker, in this process) against a bare
    PyTorch loop over the same batches and masks with the same model, in alternating blocks. The
    default is a model of 5M parameters on 16 rows of 128 random tokens; about two minutes on a
    core. No ratio is given unless both loops have the same losses.

    `sweep`: seconds per trial that are not training steps, on a sweep of six one-worker trials of a
    tiny model on sums; about two minutes on two cores. With `--set sweep.path=trainer` each trial
    goes through Ray Train.

    `estimators`: variance of the loss and of its gradient under every shipped estimator, relative
    to Standard, per step and per forward, and against the least that any density could reach. A
    tiny model is trained by Standard on generated tasks whose responses have about 5, 20 and
    80 tokens;
    `--set data.folder=…` takes prepared data of your own instead. About half an hour on two cores.

    Example: raymdm bench train --set training.threads_per_worker=2 --json train.json
    """
    console = Console()
    figures: TrainingFigures | SweepFigures
    with tempfile.TemporaryDirectory(prefix="raymdm-bench-") as folder:
        if name is Name.train:
            base = {**read_config(["models/5m"]), **_TRAIN}
            checked = settings(config, set_, base=base)
            figures = measure_training(checked, Path(folder), Plan(blocks=blocks))
            console.print(training_table(figures))
        elif name is Name.estimators:
            place = {"run_dir": f"{folder}/run", "data": {"folder": f"{folder}/data"}}
            checked = settings(config, set_, base={**_ESTIMATORS, **place})
            told = lambda text: Console(stderr=True).print(text)  # noqa: E731
            lengths = measure_estimators(checked, Path(folder), told, verbose=verbose)
            for title, found in lengths.items():
                console.print(estimator_table(title, found))
            if json_file is not None:
                content = {title: found.model_dump() for title, found in lengths.items()}
                write_json(json_file, {"name": name.value, **content})
            return
        else:
            place = {"run_dir": f"{folder}/sweep", "data": {"folder": f"{folder}/data"}}
            base = {**read_config(["tasks/addition"]), **_SWEEP, **place}
            figures = measure_sweep(settings(config, set_, base=base), verbose=verbose)
            console.print(sweep_table(figures))
    if json_file is not None:
        write_json(json_file, {"name": name.value, **_finite(dataclasses.asdict(figures))})


def training_table(figures: TrainingFigures) -> Table:
    """Both loops and their ratio."""
    low, high = figures.quartiles
    table = Table(
        title=f"{figures.parameters / 1e6:.1f}M parameters, {figures.steps} steps of each loop",
        caption=f"same losses up to {figures.loss_difference:.0e} (relative)",
    )
    table.add_column("loop")
    table.add_column("tokens/s", justify="right")
    table.add_column("ratio (quartiles)", justify="right")
    table.add_row("bare PyTorch", f"{figures.bare:,.0f}", "1")
    ratio = f"{figures.ratio:.3f} ({low:.3f} to {high:.3f})"
    table.add_row("raymdm worker", f"{figures.ours:,.0f}", ratio)
    table.add_row("  of it drawing t and masks", "", f"{figures.drawing:.2%} of a step")
    return table


def sweep_table(figures: SweepFigures) -> Table:
    """Where a trial's seconds went."""
    table = Table(
        title=f"{figures.trials} trials, path {figures.path}",
        caption=f"{figures.wall:.0f} s in all, {figures.concurrency} at a time",
    )
    table.add_column("seconds per trial")
    table.add_column("mean or median", justify="right")
    table.add_row("training steps", f"{figures.training:.1f}")
    table.add_row("everything else", f"[bold]{figures.overhead:.1f}[/bold]")
    table.add_row("  of it evaluation", f"{figures.evaluation:.1f}")
    table.add_row("  a process's first trial", f"{figures.first:.1f}")
    if not math.isnan(figures.later):
        table.add_row("  its later trials", f"{figures.later:.1f}")
    table.add_row("starting Ray, once per sweep", f"{figures.ray_start:.1f}")
    return table


def estimator_table(title: str, figures: Figures) -> Table:
    """Every estimator against Standard on one data set."""
    table = Table(
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
        table.add_column(column, justify="left" if column == "estimator" else "right")
    best = min(
        (row for row in figures.estimators if row.same_objective),
        key=lambda row: row.gradient.forward.value,
    )
    for row in figures.estimators:
        style = "bold" if row is best else None
        table.add_row(*_estimator_cells(row), style=style)
    return table


def _estimator_cells(row: Measured) -> list[str]:
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


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in values.items()
    }


if __name__ == "__main__":
    run_as_program(main)
