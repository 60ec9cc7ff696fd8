"""A whole training step on one device, without DeepSpeed, and the arithmetic that it needs."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from raymdm.benchmarks.device import default_device, wait_for_device
from raymdm.config.training import TrainingSection
from raymdm.diffusion.cross_entropy import masked_cross_entropy
from raymdm.diffusion.noise import mask_noise, time_noise
from raymdm.models import Backbone, Execution, ModelShape
from raymdm.models.weights import PRECISIONS

Result = TypeVar("Result")


@dataclass(frozen=True)
class Variant:
    """How the blocks are computed: by torch.compile, with activation checkpointing."""

    compiled: bool
    recompute: bool

    def __str__(self) -> str:
        name = "compiled" if self.compiled else "eager"
        return f"{name}, checkpointing" if self.recompute else name


@dataclass(frozen=True)
class Batch:
    """Rows of one length, all of it response: ids int64[B, L], masked bool[B, L], rates [B]."""

    input_ids: Tensor
    masked: Tensor
    t: Tensor

    @staticmethod
    def drawn(shape: ModelShape, seed: int, step: int, rows: int, length: int) -> "Batch":
        """Random tokens, with Standard's rates and masks."""
        t = torch.from_numpy(time_noise(seed, step, rows))
        masked = mask_noise(seed, step, range(rows), length)[0] < t[:, None]
        random = np.random.default_rng([seed, step])
        ids = torch.from_numpy(random.integers(0, shape.mask_token_id, (rows, length)))
        device = default_device()
        return Batch(ids.to(device), masked.to(device), t.float().to(device))


class AdamW:
    """Fused AdamW on fp32 copies of the weights, as DeepSpeed keeps them for bf16."""

    def __init__(self, model: Backbone) -> None:
        self.weights = list(model.parameters())
        # In fp32 the copies are the weights themselves.
        self.copies = [weight.detach().float() for weight in self.weights]
        self.adamw = torch.optim.AdamW(self.copies, lr=1e-4, fused=True)

    @torch.no_grad()
    def step(self) -> None:
        """Update the weights and forget their gradients."""
        for wide, weight in zip(self.copies, self.weights, strict=True):
            wide.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None
        self.adamw.step()
        self.adamw.zero_grad()
        for wide, weight in zip(self.copies, self.weights, strict=True):
            weight.copy_(wide)


class Trainer:
    """A copy of a model, and its optimiser, on the default device."""

    def __init__(self, initial: Backbone, training: TrainingSection, variant: Variant) -> None:
        model = copy.deepcopy(initial)
        self.model = model.to(default_device(), PRECISIONS[training.precision])
        self.model.execution = Execution(recompute=variant.recompute)
        self.model.head.chunk = training.head_chunk
        self.optimizer = AdamW(self.model)
        if variant.compiled:
            torch.compiler.reset()  # What was compiled before counts towards torch's limits.
            for block in self.model.blocks:
                block.compile()

    def step(self, batch: Batch) -> float:
        """Forward, backward and update; the loss."""
        real = torch.ones_like(batch.masked)
        mask = self.model.shape.mask_token_id
        sums = masked_cross_entropy(self.model, batch.input_ids, real, batch.masked, mask)
        loss = (sums / batch.t).sum() / batch.masked.numel()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def step_operations(model: Backbone, predicted: Tensor) -> float:
    """Floating-point operations of the model in a step: multiplications and additions of products.

    6 per token and weight of the blocks' matrices; 12 · layers · width · length per token for
    attention (queries times keys and weights times values, to all positions, forward and twice
    that backward); 6 · width · vocabulary per predicted position. Not counted: embedding, norms,
    and what is computed a second time.

    Args:
        model: its shape is what counts.
        predicted: bool[B, L], the positions whose logits are needed.
    """
    shape = model.shape
    matrices = sum(weight.numel() for weight in model.blocks.parameters() if weight.ndim > 1)
    attention = 12 * shape.layers * shape.heads * shape.head_width * predicted.shape[1]
    head = 6 * shape.hidden_size * shape.vocabulary_size
    return float(predicted.numel() * (6 * matrices + attention) + int(predicted.sum()) * head)


def product_speed(size: int, dtype: torch.dtype, repeats: int = 10) -> float:
    """Operations per second of a product of two size × size matrices of random numbers, median."""
    left, right = (torch.randn(size, size, device=default_device()).to(dtype) for _ in range(2))
    seconds = [timed(lambda: left @ right)[1] for _ in range(3 + repeats)]
    return float(2 * size**3 / np.median(seconds[3:]))


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """What it gives, and its seconds, on a GPU until it is done there."""
    wait_for_device()
    started = time.perf_counter()
    result = work()
    wait_for_device()
    return result, time.perf_counter() - started
