"""Rotary position embedding: half-split, computed in at least float32."""

import math

import torch
from torch import Tensor

from raymdm.models.shape import ModelShape, RopeScaling


def widened(dtype: torch.dtype) -> torch.dtype:
    """The type that norms and rotations are computed in: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def rotary(length: int, shape: ModelShape, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cos and sin [length, head width] of the angles, in at least float32, where `like` is."""
    kind = {"device": like.device, "dtype": widened(like.dtype)}
    half = torch.arange(0, shape.head_width, 2, **kind) / shape.head_width
    frequencies = 1.0 / shape.rope_theta**half
    if shape.rope_scaling is not None:
        frequencies = scaled(frequencies, shape.rope_scaling)
    angles = torch.outer(torch.arange(length, **kind), frequencies)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def scaled(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3's frequencies from the plain ones."""
    turns = scaling.original_length * frequencies / (2 * math.pi)
    low, high = scaling.low_frequency, scaling.high_frequency
    kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return frequencies * (kept + (1.0 - kept) / scaling.factor)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary position embedding of x[..., L, head width], computed wide, back in x's dtype."""
    cos, sin = rotation
    wide = x.to(cos.dtype)
    first, second = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)
