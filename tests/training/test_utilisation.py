"""The operations that MFU is computed from are those that torch counts."""

import math

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from raymdm.config import Config
from raymdm.models import ModelShape, build_model
from raymdm.training.utilisation import peak_operations, step_operations


@pytest.mark.parametrize("key_value_heads", [4, 2])
def test_the_operations_of_a_step_are_what_torch_counts(key_value_heads: int) -> None:
    """Every token predicted, so that the head counts whole; attention as plain products."""
    shape = ModelShape(
        vocabulary_size=64,
        hidden_size=32,
        layers=3,
        heads=4,
        key_value_heads=key_value_heads,
        intermediate_size=96,
        mask_token_id=63,
        eos_token_id=62,
        pad_token_id=61,
    )
    model = build_model(shape, seed=0)
    rows, length = 2, 24
    tokens = torch.randint(0, 60, (rows, length))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        model(tokens).sum().backward()
    ours = step_operations(shape, np.full(rows, length), rows * length)
    assert ours == pytest.approx(counted.get_total_flops(), rel=0.01)


def test_of_a_cpu_no_peak_is_known() -> None:
    assert math.isnan(peak_operations(torch.device("cpu"), Config()))


@pytest.mark.parametrize(
    ("name", "peak"),
    [("NVIDIA H100 PCIe", 756e12), ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA L40S", 362e12)],
)
def test_a_gpu_is_known_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, peak: float
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    config = Config.model_validate({"training": {"precision": "bf16"}})
    assert peak_operations(torch.device("cuda", 0), config) == peak
