"""Rows of like length together: padding is computed too, and buys nothing."""

from collections.abc import Sequence


def batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Rows in batches of at most `size`, the longest first: what does not fit fails at once.

    Args:
        lengths: tokens of every row.
        size: rows of a batch, at least 1.

    Returns:
        Indices of the rows, every one once.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    return [order[start : start + size] for start in range(0, len(order), size)]
