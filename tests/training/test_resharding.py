"""A run saved by one number of workers goes on with another, and nothing changes."""

from pathlib import Path

import numpy as np
import pytest
from prepared import losses_of, start_run, tiny_config, write_prepared

from raymdm.benchmarks.processes import train_in_processes
from raymdm.training import run_in_process
from raymdm.training.job import Job

STEPS, CUT = 6, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared")


def _run(tmp_path: Path, folder: Path, name: str, stage: int, **sections: object) -> Job:
    config = tiny_config(
        tmp_path / name,
        folder,
        deepspeed={"zero_stage": stage},
        training={
            "steps": STEPS,
            "batch_size": 16,
            "learning_rate": 3e-3,
            "checkpoint_every": 2,
            "weight_decay": 0.1,
            **sections.pop("training", {}),  # type: ignore[dict-item]
        },
        estimator={"control": {"kind": "ema"}},
        **sections,
    )
    return start_run(config)


def _check(
    tmp_path: Path, folder: Path, before: int, after: int, stage: int, **sections: object
) -> float:
    """Largest relative difference of the losses after the change of size."""
    job = _run(tmp_path, folder, "whole", stage, **sections)
    assert run_in_process(job).state == "finished"
    cut = _run(tmp_path, folder, "cut", stage, **sections)
    train_in_processes([cut.config], before, tmp_path, stop=CUT + 1)
    train_in_processes([cut.config], after, tmp_path)
    return float(np.abs(losses_of(cut) / losses_of(job) - 1).max())


@pytest.mark.parametrize(
    ("before", "after", "stage"),
    [
        (2, 1, 2),
        *(
            pytest.param(*sizes, stage, marks=pytest.mark.slow)
            for stage in (0, 1, 2, 3)
            for sizes in ((2, 1), (1, 2))
            if (*sizes, stage) != (2, 1, 2)
        ),
    ],
)
def test_another_number_of_workers_goes_on_with_the_same_losses(
    tmp_path: Path, folder: Path, before: int, after: int, stage: int
) -> None:
    assert _check(tmp_path, folder, before, after, stage) < 1e-6
