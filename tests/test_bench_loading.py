"""Under ZeRO 3 two workers together never hold more than 1.3 copies beside their shares."""

import os
import time
from pathlib import Path

import pytest

from raymdm.benchmarks.loading import measure_loading, peak_memory
from raymdm.models import ModelShape


def test_what_is_taken_and_given_back_is_still_the_peak():
    with peak_memory() as peak:
        held = os.urandom(64 * 2**20)
        time.sleep(0.2)  # it is looked at every now and then
        del held
    assert 60 * 2**20 < peak[0] < 200 * 2**20


@pytest.mark.slow
def test_a_model_is_loaded_in_shards(tmp_path: Path):
    shape = ModelShape(32000, 768, 12, 12, 12, 2048, 1, 2, 3)
    figures = measure_loading(tmp_path, shape)
    assert figures.copy < figures.peak <= figures.allowed
