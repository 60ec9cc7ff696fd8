"""Bytes by what they are for."""

from dataclasses import dataclass, fields

MIB, GIB = 2**20, 2**30


@dataclass(frozen=True)
class Parts:
    """Bytes that one worker holds at one moment.

    Attributes:
        weights: of the model, in the precision of training.
        gradients: of the trained weights.
        optimizer: moments, and fp32 copies of the weights where training is in another precision.
        buffers: of communication, of weights gathered for a moment, and of the update.
        activations: kept for the backward pass, and what a block computes with.
        logits: with their gradients.
    """

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    buffers: float = 0.0
    activations: float = 0.0
    logits: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return sum(getattr(self, name) for name in NAMES)

    def __add__(self, other: "Parts") -> "Parts":
        return Parts(*(getattr(self, name) + getattr(other, name) for name in NAMES))


NAMES = tuple(field.name for field in fields(Parts))


def size(value: float) -> str:
    """Bytes for people."""
    return f"{value / GIB:.1f} GiB" if value >= GIB else f"{value / MIB:.0f} MiB"
