"""Under ZeRO 3 two workers together never hold more than 1.3 copies beside their shares."""

import mmap
import time
from pathlib import Path

import pytest

from raymdm.benchmarks.loading import measure_loading, peak_memory
from raymdm.models import ModelShape

MEGABYTE = 2**20


def test_what_is_taken_and_given_back_is_still_the_peak():
    # Pages of its own: memory that was freed before may be resident still.
    with peak_memory() as peak, mmap.mmap(-1, 64 * MEGABYTE) as held:
        for _ in range(64):
            held.write(b"x" * MEGABYTE)
        time.sleep(0.2)  # it is looked at every now and then
    assert peak[0] > 60 * MEGABYTE


@pytest.mark.slow
def test_a_model_is_loaded_in_shards(tmp_path: Path):
    shape = ModelShape(32000, 1024, 16, 16, 16, 2816, 1, 2, 3)
    figures = measure_loading(tmp_path, shape)
    assert figures.copy < figures.peak <= figures.allowed
