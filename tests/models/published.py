"""Checkpoints in the published formats with the logits of the original code, where they are."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

FIXTURES = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures"
FAMILIES = ("llada", "dream", "mmada")
CASES = [
    *(("llada", case) for case in ("plain", "leftpad", "rightpad")),
    *((family, case) for family in ("dream", "mmada") for case in ("plain", "leftpad")),
]
needed = pytest.mark.skipif(not FIXTURES.is_dir(), reason="no published checkpoints here")


def folder(family: str) -> Path:
    return FIXTURES / f"{family}_tiny"


def case(family: str, name: str) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, ...]:
    """Ids, attention mask, the original's aligned logits, and where they have a meaning."""
    reference = load_file(folder(family) / "reference.safetensors")
    ids, attention = reference[f"{name}.input_ids"], reference.get(f"{name}.attention_mask")
    logits = reference.get(f"{name}.logits_shifted", reference.get(f"{name}.logits"))
    assert logits is not None
    real = torch.ones_like(ids).bool() if attention is None else attention.bool()
    if family == "dream":
        # The original takes what predicts a row's first token from the padding before it.
        real = real & functional.pad(real[:, :-1], (1, 0), value=True)
    return ids, attention, logits, real
