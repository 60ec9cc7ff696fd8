"""`raymdm bench stream` measures what a run trains and streams. No timing is asserted."""

from pathlib import Path

import pytest

from raymdm.benchmarks.stream import Plan, measure_stream, table
from raymdm.config.loading import validate


@pytest.mark.ray
def test_either_shuffle_is_measured_against_training(ray_cluster: None, tmp_path: Path) -> None:
    config = validate(
        {
            "model": {"hidden_size": 16, "layers": 1, "heads": 2},
            "training": {"batch_size": 8},
            "data": {"fragment_bytes": 2000, "window_blocks": 4, "rows_per_block": 64},
        }
    )
    plan = Plan(blocks=1, steps=2, warm_up=1, rows=200, length=24, prompt_length=6)
    figures = measure_stream(config, tmp_path, plan)
    assert figures.ratios == {
        shuffle: speed / figures.training for shuffle, speed in figures.supplied.items()
    }
    assert list(figures.supplied) == ["window", "full"]
    assert min(figures.training, *figures.supplied.values(), *figures.first_step.values()) > 0
    size = (tmp_path / "data" / "train.jsonl").stat().st_size
    assert figures.megabytes == size / 1e6
    assert table(figures).row_count == 3
