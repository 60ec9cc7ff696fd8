"""What a checkpoint costs is measured on one that a run would write."""

from pathlib import Path

import pytest

from raymdm.benchmarks.checkpoint import measure_checkpoints, table
from raymdm.config.loading import validate


def test_steps_and_checkpoints_are_timed_and_weighed(tmp_path: Path) -> None:
    config = validate({"model": {"hidden_size": 16, "layers": 1, "heads": 2}})
    figures = measure_checkpoints(config, tmp_path, blocks=2)
    # Adam in fp32: the weights and two moments of each, and little else.
    assert figures.megabytes == pytest.approx(12e-6 * figures.parameters, rel=0.2)
    assert figures.step > 0
    assert figures.share == pytest.approx(
        figures.checkpoint / (50 * figures.step + figures.checkpoint)
    )
    assert table(figures).row_count == 3
