"""What `raymdm bench workers` compares is the same training, spread differently."""

from pathlib import Path

import pytest

from raymdm.benchmarks.scaling import ScalingFigures, measure_scaling
from raymdm.benchmarks.workers import measure_spread


@pytest.mark.slow
@pytest.mark.ray
def test_the_losses_of_two_workers_are_those_of_one(tmp_path: Path) -> None:
    differences = measure_spread(tmp_path / "spread", stages=(0, 3))
    assert differences.pop((1, 0)) == 0
    assert max(differences.values()) < 1e-5


@pytest.mark.slow
@pytest.mark.ray
def test_every_way_of_spreading_trains(tmp_path: Path) -> None:
    figures = measure_scaling(tmp_path / "scaling", rounds=1, steps=8)
    assert min(figures.process, figures.apart, figures.group) > 0
    assert min(figures.alone, figures.together) > 0
    assert 0 <= figures.waiting < 1


def test_efficiency_is_one_where_two_train_twice_as_much() -> None:
    figures = ScalingFigures(
        process=1.0, apart=2.0, group=2.0, alone=3.0, together=6.0, waiting=0.0, cores=2
    )
    assert figures.efficiency == 1
