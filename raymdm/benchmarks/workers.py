"""Workers: do they change the result (no), and how much faster are two than one.

Real runs of `raymdm train`, one after the other: the same training on one and two workers under
every ZeRO stage; for the speed see `scaling.py`.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.table import Table

from raymdm.benchmarks.faults import fault_config
from raymdm.benchmarks.request import Report, Request
from raymdm.benchmarks.scaling import measure_scaling, scaling_table, train_through_ray

_STEPS = 30


def bench(request: Request) -> Report:
    """Losses under every stage and number of workers; weak scaling of a model of 5M parameters."""
    differences = measure_spread(request.folder / "spread")
    scaling = measure_scaling(request.folder / "scaling")
    named = {f"{workers} workers, ZeRO {stage}": d for (workers, stage), d in differences.items()}
    return Report(
        [spread_table(differences), scaling_table(scaling)],
        {"differences": named, "scaling": {**asdict(scaling), "efficiency": scaling.efficiency}},
    )


def spread_table(differences: dict[tuple[int, int], float]) -> Table:
    """One row a stage, one column a number of workers."""
    made = Table(title="largest relative difference of any step's loss to 1 worker, ZeRO 0")
    made.add_column("ZeRO stage")
    counts = sorted({workers for workers, _ in differences})
    for workers in counts:
        made.add_column(f"{workers} worker{'s' * (workers > 1)}", justify="right")
    for stage in sorted({stage for _, stage in differences}):
        made.add_row(str(stage), *(f"{differences[workers, stage]:.1e}" for workers in counts))
    return made


def measure_spread(
    folder: Path, counts: tuple[int, ...] = (1, 2), stages: tuple[int, ...] = (0, 1, 2, 3)
) -> dict[tuple[int, int], float]:
    """Largest relative difference of the losses to those of the first of these, by workers and
    stage.

    Raises:
        RunError: a run failed.
    """
    config = fault_config(folder, zero_stage=0, steps=_STEPS)
    losses = {}
    for workers in counts:
        for stage in stages:
            where = folder / f"{workers}-workers-zero{stage}"
            where.mkdir(parents=True)
            made = config.model_copy(
                update={
                    "run_dir": str(where / "run"),
                    "cluster": config.cluster.model_copy(update={"workers": workers}),
                    "deepspeed": config.deepspeed.model_copy(update={"zero_stage": stage}),
                }
            )
            losses[workers, stage] = train_through_ray(made, where)["loss"].to_numpy()
    reference = losses[counts[0], stages[0]]
    return {key: float(np.abs(each / reference - 1).max()) for key, each in losses.items()}
