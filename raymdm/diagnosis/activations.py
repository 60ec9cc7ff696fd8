"""What a forward pass keeps for the backward pass, and what both compute with, counted by hand.

A test counts the tensors that autograd really saves (`tests/diagnosis/test_activations.py`).
Attention keeps no L x L matrix: every kernel that PyTorch chooses for these shapes, on CPUs and on
GPUs, keeps its output and one normaliser per query and head.
"""

from dataclasses import dataclass

from raymdm.config.model import LoraSection
from raymdm.models import ModelShape

FLOAT = 4
"""Bytes of a float32, which norms, rotations and losses are computed in at least."""


@dataclass(frozen=True)
class Activations:
    """Bytes of one forward of T tokens.

    Attributes:
        kept: by all blocks and the final norm, until the backward pass reaches them.
        block: inside one block that is computed again, beside its input; else 0.
        lowest: still kept when the backward pass is in the lowest block.
        work: beyond what is kept, while the gradient of one block is computed.
    """

    kept: float
    block: float
    lowest: float
    work: float


def count_activations(
    shape: ModelShape, tokens: int, width: int, lora: LoraSection, *, recompute: bool
) -> Activations:
    """Activations of T = `tokens` tokens, `width` bytes a number."""
    inside = tokens * block_bytes(shape, width, lora)
    boundary = tokens * shape.hidden_size * width
    top = tokens * norm_bytes(shape.hidden_size, width, trained=lora.rank is None)
    # Gradients by the three factors of the MLP, the last of which is no longer kept by then.
    work = tokens * width * (2 * shape.intermediate_size + 2 * shape.hidden_size)
    if recompute:
        return Activations(shape.layers * boundary + top, inside, boundary + inside, work)
    return Activations(shape.layers * inside + top, 0.0, inside, work)


def block_bytes(shape: ModelShape, width: int, lora: LoraSection) -> float:
    """Bytes that one block keeps per token.

    Norms keep what `norm_bytes` says, linear layers their input (once where several share it),
    attention the rotated queries and keys, the values and its output, SwiGLU its three factors.
    Of a frozen weight nothing is kept but by its adapter: the input, and `rank` numbers.
    """
    hidden, wide = shape.hidden_size, shape.intermediate_size
    queries = shape.heads * shape.head_width
    keys = shape.key_value_heads * shape.head_width
    trains = lora.rank is None

    def reads(*names: str) -> bool:
        """Whether a layer among them keeps its input."""
        return trains or not set(names).isdisjoint(lora.targets)

    kept = 2 * norm_bytes(hidden, width, trained=trains)
    kept += width * hidden * reads("query", "key", "value") + width * hidden * reads("gate", "up")
    kept += width * (2 * queries + 2 * keys) + FLOAT * shape.heads
    if shape.query_key_norm:
        for size, heads in ((queries, shape.heads), (keys, shape.key_value_heads)):
            kept += norm_bytes(size, width, trained=trains, rows=heads)
        # The kernel's output is laid out as its queries are, head by head: a copy follows.
        kept += width * queries * reads("output")
    kept += width * wide * (3 + reads("down"))
    if lora.rank is not None:
        kept += width * lora.rank * len(lora.targets)
    return kept


def passing_bytes(shape: ModelShape, tokens: int, width: int) -> float:
    """Bytes of a forward of which nothing is kept, at the wider of two places: the three factors of
    the MLP, or the rotation of queries, which is computed in float32.
    """
    hidden, queries = shape.hidden_size, shape.heads * shape.head_width
    factors = width * (3 * shape.intermediate_size + 3 * hidden)
    rotation = width * (2 * hidden + 4 * queries) + FLOAT * 4 * queries
    return tokens * max(factors, rotation)


def norm_bytes(size: int, width: int, *, trained: bool, rows: int = 1) -> float:
    """Bytes that RMS norms over `rows` rows of together `size` numbers keep: their input in
    float32, its inverse root mean square, and for the weight's gradient the normed input.
    """
    return FLOAT * size + FLOAT * rows + width * size * trained


def logit_bytes(predicted: int, vocabulary: int, width: int, chunk: int | None) -> float:
    """Bytes of M = `predicted` positions' logits at their widest moment.

    In the backward pass of the cross-entropy: the log-probabilities that it kept, the gradient by
    them and the gradient by the logits, all in float32. In chunks only the logits, in float32 and
    in the model's own precision.
    """
    if chunk is not None and chunk < predicted:
        return chunk * vocabulary * chunk_width(width)
    return 3 * FLOAT * predicted * vocabulary


def forward_logit_bytes(predicted: int, vocabulary: int, width: int, chunk: int | None) -> float:
    """The same without a backward pass: logits, their float32 copy if any, log-probabilities."""
    if chunk is not None and chunk < predicted:
        return chunk * vocabulary * chunk_width(width)
    return (FLOAT + chunk_width(width)) * predicted * vocabulary


def chunk_width(width: int) -> int:
    """Bytes of a logit in the model's precision and in float32, once where that is the same."""
    return width if width == FLOAT else width + FLOAT
