"""raymdm variance [RUN_DIR] : where the noise of a model and data set comes from, before training.

    raymdm variance runs/one --set training.batch_size=32
    raymdm variance -c base -c models/tiny -c tasks/sorting --set data.folder=data/sorting

Splits the variance of the training loss, and of its gradient, into mask pattern (A), mask rate (B)
and rows (C); measures what every estimator would make of it, per step and per forward; recommends
one. Writes `variance.json` and `variance.html`.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
from raymdm.errors import CheckpointError
from raymdm.training import RunDirectory
from raymdm.training.run_directory import MEASURED
from raymdm.variances.figures import Figures
from raymdm.variances.measure import measure
from raymdm.variances.page import write_figures
from raymdm.variances.recommend import recommend
from raymdm.variances.tables import print_figures
from raymdm.variances.work import forget_units


@reports_errors
def main(
    run_dir: Annotated[
        Path | None,
        typer.Argument(
            help="A trained run: its configuration, with its model/.", show_default=False
        ),
    ] = None,
    config: ConfigFiles = None,
    set_: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the results; <run_dir>/variance if not given."),
    ] = None,
    imports: Imports = None,
    dump_config: DumpConfig = False,
    verbose: Verbose = False,
) -> None:
    """Measure where the training noise of a model and data set comes from, and what would help.

    Give a trained run, or a configuration as for `train` (its starting weights, or a checkpoint by
    model.init_from). Batches have training.batch_size rows. The forwards run as Ray actors over the
    cluster; the result does not depend on how many, and an interrupted measurement goes on where it
    stopped. variance.* says how much is measured.

    Example: raymdm variance runs/one --set "variance.estimators=[ppots,mirror,recommended]"
    """
    base = None
    if run_dir is not None:
        run = RunDirectory.existing(run_dir)
        if not run.model.is_dir():
            raise CheckpointError(
                f"{run.path} has no model/; train it with `keep` other than metrics, or measure "
                "starting weights by giving a configuration instead"
            )
        base = run.read_config()
        base["model"] = {**base["model"], "init_from": str(run.model.absolute())}
        base["run_dir"] = str(run.path.absolute())
    checked = settings(config, set_, imports, dump_config, base)
    folder = (out or Path(checked.run_dir) / MEASURED).absolute()
    figures = measured(checked, folder, verbose=verbose)
    print_figures(figures, Console())
    Console().print(f"{folder / 'variance.html'}")


def measured(config: Config, folder: Path, *, verbose: bool = False) -> Figures:
    """Measure on a Ray cluster, recommend, write the files."""
    bar = Progress(
        TextColumn("measuring"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with start_ray(config.cluster.address, verbose=verbose), bar:
        task = bar.add_task("units", total=None)
        figures = measure(
            config, folder, lambda done, total: bar.update(task, completed=done, total=total)
        )
    figures = recommend(figures)
    write_figures(figures, folder)
    forget_units(config, folder)
    return figures


if __name__ == "__main__":
    run_as_program(main)
