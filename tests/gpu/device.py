"""What the tests on a GPU share: the marks they bear, a small model, and rows for it."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from raymdm.diffusion import Rows
from raymdm.models import Backbone, ModelShape, build_model

GPU = torch.device("cuda")
ON_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
VOCABULARY = 40
MASK, EOS, PAD = 37, 38, 39


def small_model(**kind: Any) -> Backbone:
    """Random weights, wide enough that its choices are not close; on the CPU, in fp32."""
    shape = ModelShape(
        vocabulary_size=VOCABULARY,
        hidden_size=32,
        layers=2,
        heads=4,
        key_value_heads=kind.pop("key_value_heads", 4),
        intermediate_size=64,
        mask_token_id=MASK,
        eos_token_id=EOS,
        pad_token_id=PAD,
        **kind,
    )
    return build_model(shape, seed=1, initializer_std=0.3)


def uneven_rows(count: int = 6) -> Rows:
    """Rows of 6 to 11 tokens, the first three of each its prompt; two delimiters, one of syntax."""
    random = torch.Generator().manual_seed(0)
    lengths = torch.arange(6, 6 + count)[:, None]
    places = torch.arange(6 + count)[None]
    real = places < lengths
    ids = torch.randint(0, MASK, real.shape, generator=random).masked_fill(~real, PAD)
    delimiters = real & ((places == 3) | (places == 5))
    syntax = real & (places == 1)
    return Rows(ids, real, real & (places >= 3), list(range(count)), delimiters, syntax)


def apart(module: str, function: str, *arguments: object) -> None:
    """Call it in a process of its own: DeepSpeed keeps to the first device that it sees."""
    called = f"import {module}; {module}.{function}(*{[str(value) for value in arguments]!r})"
    environment = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    subprocess.run([sys.executable, "-c", called], env=environment, check=True)
