"""How a worker's rows of one optimiser step are shared among its forwards.

Only the grouping differs: the step's rows, their noise and their number stay what they are.
"""

import math
from typing import Literal

import numpy as np

Batching = Literal["padded", "bucketed", "packed"]


def micro_batches(lengths: np.ndarray, size: int, batching: Batching) -> list[list[int]]:
    """Rows of each forward, ceil(B / size) of them, none empty.

    Args:
        lengths: int64[B], tokens of the rows.
        size: most rows of a forward; of `packed` ones the average.
        batching: `padded`, in order; `bucketed`, sorted by length; `packed`, about equally many
            tokens in each (the longest row first, always to the forward with the fewest tokens).
    """
    if batching == "packed":
        return _balanced(lengths, math.ceil(len(lengths) / size))
    order = range(len(lengths)) if batching == "padded" else np.argsort(lengths, kind="stable")
    rows = [int(row) for row in order]
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _balanced(lengths: np.ndarray, count: int) -> list[list[int]]:
    groups: list[list[int]] = [[] for _ in range(count)]
    tokens = [0] * count
    for row in np.argsort(-lengths, kind="stable"):
        # Among equals the one with fewer rows: every group gets one before any gets two.
        least = min(range(count), key=lambda group: (tokens[group], len(groups[group])))
        groups[least].append(int(row))
        tokens[least] += int(lengths[row])
    return groups
