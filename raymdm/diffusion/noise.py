"""Addressed randomness: every number is a pure function of (seed, stream, address).

Nothing here has state, so the same noise comes out for any number of workers, any split into
micro-batches, after any resume, and in another arm of a sweep. The generator is Philox-4x64
(Salmon et al. 2011): the key holds the seed and the stream, the counter holds the address, and a
position inside an address is an index into its sequence.
"""

from collections.abc import Sequence

import numpy as np
import torch

STREAMS = (
    "init",
    "order",
    "time",
    "mask",
    "dropout",
    "decode",
    "probe",
    "validation",
    "sweep",
    "fragments",
    "window",
    "slots",
)


def generator(seed: int, stream: str, *address: int) -> np.random.Generator:
    """The generator at an address of at most three non-negative integers.

    Raises:
        ValueError: an unknown stream or more than three address words.
    """
    if len(address) > 3:
        raise ValueError(f"an address has at most three words, got {address}")
    counter = [0, *address, *([0] * (3 - len(address)))]
    key = [seed, STREAMS.index(stream) + 1]
    # As arrays: numpy then takes them as they are, without deriving a seed sequence from them.
    return np.random.Generator(
        np.random.Philox(
            counter=np.array(counter, dtype=np.uint64), key=np.array(key, dtype=np.uint64)
        )
    )


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


def permutation(seed: int, epoch: int, rows: int, source: int = 0) -> np.ndarray:
    """The order of a source's samples in an epoch: a permutation of 0..rows-1, int64."""
    return generator(seed, "order", epoch, source).permutation(rows)


def torch_generator(seed: int, stream: str, *address: int) -> torch.Generator:
    """A torch generator whose state is a pure function of the address (for weights)."""
    bits = generator(seed, stream, *address).integers(0, 2**63 - 1)
    return torch.Generator().manual_seed(int(bits))
