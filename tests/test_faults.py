"""A real run, a real fault, and the losses of the run that nothing happened to.

Every run has its own Ray cluster, in processes of its own.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raymdm.benchmarks.faults import FAULTS, FaultFigures, fault_config, measure_fault
from raymdm.benchmarks.processes import train_in_processes
from raymdm.config import Config

pytestmark = [pytest.mark.ray]
EVERY = 10


def _undisturbed(config: Config, folder: Path) -> np.ndarray:
    """Losses of two workers without Ray: the same to the last digit."""
    (folder / "run").mkdir(parents=True)
    here = config.model_copy(update={"run_dir": str(folder / "run")})
    train_in_processes([here], 2, folder)
    return pd.read_parquet(folder / "run" / "metrics.parquet")["loss"].to_numpy()


@pytest.fixture(scope="module")
def references() -> dict[int, np.ndarray]:
    return {}


def _measure(tmp_path: Path, references: dict, name: str, stage: int) -> FaultFigures:
    config = fault_config(tmp_path, stage)
    if stage not in references:
        references[stage] = _undisturbed(config, tmp_path / "undisturbed")
    return measure_fault(config, tmp_path / "run", FAULTS[name], references[stage])


KILLS = ("worker", "saving", "controller", "driver", "interrupt", "block")
STOPS = ("terminate", "terminate-worker", "drain")


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        pytest.param(name, stage, marks=() if (name, stage) == ("worker", 2) else pytest.mark.slow)
        for name in (*KILLS, "node")
        for stage in ((0, 1, 2, 3) if name == "worker" else (2,))
    ],
)
def test_after_a_loss_the_run_ends_as_if_nothing_had_happened(
    tmp_path: Path, references: dict[int, np.ndarray], name: str, stage: int
) -> None:
    figures = _measure(tmp_path, references, name, stage)
    assert figures.difference < 1e-6
    assert figures.lost <= EVERY


@pytest.mark.slow
def test_a_run_goes_on_with_the_workers_that_are_left(
    tmp_path: Path, references: dict[int, np.ndarray]
) -> None:
    """Sums over two workers and over one round differently, and training amplifies it."""
    figures = _measure(tmp_path, references, "elastic", 2)
    assert figures.difference < 1e-4


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n == "terminate" else pytest.mark.slow) for n in STOPS],
)
def test_a_run_that_is_asked_to_stop_loses_nothing(
    tmp_path: Path, references: dict[int, np.ndarray], name: str
) -> None:
    figures = _measure(tmp_path, references, name, 2)
    assert figures.difference < 1e-6
    assert figures.step == figures.checkpoint
    assert figures.commands == 2
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "continue with the same command and --resume" in log
