"""The noise of training: u for the mask rates, U for the masks, weights' first values.

All of it addressed (`raymdm.randomness`): time noise by optimiser step and slot, mask noise by
epoch, sample, position and replica.
"""

from collections.abc import Sequence

import numpy as np
import torch

from raymdm.randomness import generator


def time_noise(seed: int, step: int, batch_size: int) -> np.ndarray:
    """u[N] in [0,1), float64: one number per slot of the global batch of optimiser step `step`."""
    return generator(seed, "time", step).random(batch_size)


def mask_noise(
    seed: int,
    epoch: int | np.ndarray,
    samples: Sequence[int],
    length: int,
    replicas: int = 1,
    stream: str = "mask",
) -> torch.Tensor:
    """U[replicas, B, L] in [0,1), float64, for the rows with these sample numbers.

    The epoch is one number, or int64[B] where rows of a mixture are in different ones.
    The number at (sample, position, replica) does not depend on `length`, on the other rows, or on
    how many replicas are asked for.
    """
    noise = np.empty((replicas, len(samples), length))
    epochs = np.broadcast_to(epoch, len(samples)).tolist()
    for replica in range(replicas):
        for row, address in enumerate(zip(epochs, samples, strict=True)):
            noise[replica, row] = generator(seed, stream, *address, replica).random(length)
    return torch.from_numpy(noise)


def torch_generator(seed: int, stream: str, *address: int) -> torch.Generator:
    """A torch generator whose state is a pure function of the address (for weights)."""
    bits = generator(seed, stream, *address).integers(0, 2**63 - 1)
    return torch.Generator().manual_seed(int(bits))
