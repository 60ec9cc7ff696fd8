"""Addressed randomness: every number is a pure function of (seed, stream, address).

Nothing here has state, so the same numbers come out for any number of workers, any split into
micro-batches, after any resume, and in another arm of a sweep. The generator is Philox-4x64
(Salmon et al. 2011): the key holds the seed and the stream, the counter holds the address, and a
position inside an address is an index into its sequence. Only numpy is needed: processes that
read data start without torch.
"""

import numpy as np

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
    "fill",
    "blocks",
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


def permutation(seed: int, epoch: int, rows: int, source: int = 0) -> np.ndarray:
    """The order of a source's samples in an epoch: a permutation of 0..rows-1, int64."""
    return generator(seed, "order", epoch, source).permutation(rows)
