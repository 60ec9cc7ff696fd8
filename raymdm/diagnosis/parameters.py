"""How many parameters a model has, and how many of them are trained."""

from dataclasses import dataclass

from raymdm.config.model import LoraSection
from raymdm.models import ModelShape
from raymdm.models.weights import empty_model


@dataclass(frozen=True)
class Parameters:
    """Numbers of elements.

    Attributes:
        total: of all weights, adapters included.
        trained: of those that have a gradient.
        largest: of the largest trained tensor.
        head: of the head's weight.
        block: of one block.
    """

    total: int
    trained: int
    largest: int
    head: int
    block: int


def count_parameters(shape: ModelShape, lora: LoraSection) -> Parameters:
    """The counts of a model as a run trains it; no memory is taken for the weights."""
    model = empty_model(shape)
    sizes = [parameter.numel() for parameter in model.parameters()]
    block = sum(parameter.numel() for parameter in model.blocks[0].parameters())
    head = model.head.weight.numel()
    if lora.rank is None:
        return Parameters(sum(sizes), sum(sizes), max(sizes), head, block)
    # An adapter is two matrices, [rank, in] and [out, rank].
    sides = [
        side
        for name, module in model.blocks[0].named_modules()
        if name.rpartition(".")[2] in lora.targets
        for side in module.weight.shape
    ]
    trained = lora.rank * sum(sides) * shape.layers
    return Parameters(sum(sizes) + trained, trained, lora.rank * max(sides), head, block)
