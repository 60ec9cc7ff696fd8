"""Gradients of single rows over a named subset of the parameters, sketched to a few numbers.

The variance of a gradient needs the squared norms of sums and differences of many rows' gradients:
more than can be kept for a large model. A count sketch (Charikar, Chen and Farach-Colton 2002) is a
fixed linear map into few dimensions that keeps every inner product in expectation, so that means
and differences may be taken afterwards.
"""

import math
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b

import torch
from torch import Tensor, nn

from raymdm.errors import ConfigurationError
from raymdm.randomness import generator

BLOCK = 2**20
"""Coordinates whose places are drawn at once. Part of the address: changing it changes results."""
CACHED = 2**28
"""Up to so many coordinates their places are kept between calls, 4 bytes each."""


def gradient_parameters(model: nn.Module, which: str) -> dict[str, nn.Parameter]:
    """The parameters whose gradient is measured, by name; only those that require a gradient.

    Args:
        model: a `Backbone` for `last_block`; else any.
        which: `all`; `last_block`, the last transformer block and the final norm; or a regular
            expression searched in the names (`lora_`, `head`).

    Raises:
        ConfigurationError: an expression that is none, or one that no parameter matches.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if which == "all":
        pattern = ""
    elif which == "last_block":
        blocks = [re.match(r"blocks\.(\d+)\.", name) for name, _ in model.named_parameters()]
        last = max((int(found[1]) for found in blocks if found), default=0)
        pattern = rf"^(blocks\.{last}|norm)\."
    else:
        pattern = which
    try:
        chosen = {name: p for name, p in trained.items() if re.search(pattern, name)}
    except re.error as error:
        raise ConfigurationError(
            f"gradient parameters {which!r} are no regular expression ({error}): give all, "
            "last_block, or an expression found in parameter names"
        ) from error
    if not chosen:
        some = ", ".join(list(trained)[-3:]) or "none"
        raise ConfigurationError(
            f"gradient parameters {which!r} match no trained parameter of the model "
            f"({len(trained)} of them, such as: {some}): give all, last_block, or a regular "
            "expression found in these names"
        )
    return chosen


def freeze_others(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
    """Turn off the gradient of every parameter outside `parameters`: their graph is never built."""
    chosen = {id(parameter) for parameter in parameters.values()}
    for parameter in model.parameters():
        if id(parameter) not in chosen:
            parameter.requires_grad_(False)


class Sketch:
    """A fixed linear map from the gradients of some parameters to `dimension` numbers.

    Every coordinate is added to, or subtracted from, one of the numbers. Which one is a pure
    function of (seed, dimension, parameter's name, place in it). Inner products are kept in
    expectation over seeds. The standard error of a squared norm, and of a sum of squared norms that
    go through the same sketch (a mean square of an analysis of variance), is at most
    sqrt(2 / dimension) of it.

    A subset of at most `dimension` coordinates is not sketched: the map is then the identity.

    Attributes:
        dimension: numbers that come out; the coordinates themselves where `exact`.
        exact: whether the map is the identity.
    """

    def __init__(
        self,
        seed: int,
        dimension: int,
        parameters: Mapping[str, Tensor],
        *,
        cached: int = CACHED,
    ) -> None:
        """The map of a seed for a subset.

        Args:
            seed: of the map.
            dimension: the most numbers to give out.
            parameters: the subset, by name; only sizes are read.
            cached: up to how many coordinates the map is kept in memory; changes its speed only.

        Raises:
            ValueError: a dimension below 1.
        """
        if dimension < 1:
            raise ValueError(f"a sketch needs at least one dimension, got {dimension}")
        coordinates = sum(parameter.numel() for parameter in parameters.values())
        self.exact = coordinates <= dimension
        self.dimension = coordinates if self.exact else dimension
        self._seed = seed
        self._sizes = {name: parameter.numel() for name, parameter in parameters.items()}
        self._keep = coordinates <= cached
        self._kept: dict[tuple[str, int, torch.device], Tensor] = {}

    @property
    def relative_error(self) -> float:
        """Bound on the relative standard error of a squared norm; 0 where exact."""
        return 0.0 if self.exact else math.sqrt(2 / self.dimension)

    def __call__(self, gradients: Sequence[Tensor]) -> Tensor:
        """Float64[dimension] on the gradients' device.

        Args:
            gradients: one tensor per parameter, in the order of the parameters given at first.

        Raises:
            ValueError: gradients that do not fit those parameters.
        """
        if [gradient.numel() for gradient in gradients] != list(self._sizes.values()):
            raise ValueError("the gradients are not those of the sketch's parameters")
        if self.exact:
            return torch.cat([gradient.reshape(-1).double() for gradient in gradients])
        device = gradients[0].device
        # Even places are added and odd ones subtracted: no vector of signs is needed.
        sums = torch.zeros(2 * self.dimension, dtype=torch.float64, device=device)
        for name, gradient in zip(self._sizes, gradients, strict=True):
            for block, part in enumerate(gradient.reshape(-1).split(BLOCK)):
                places = self._places(name, block, len(part), device)
                sums.index_add_(0, places.long(), part.double())
        return sums[0::2] - sums[1::2]

    def _places(self, name: str, block: int, count: int, device: torch.device) -> Tensor:
        """Int32[count] in 0..2·dimension-1, the places of a block of a parameter's coordinates."""
        key = (name, block, device)
        if key in self._kept:
            return self._kept[key]
        word = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")
        drawn = generator(self._seed, "probe", word, block).integers(
            2 * self.dimension, size=count, dtype="int32"
        )
        places = torch.from_numpy(drawn).to(device)
        if self._keep:
            self._kept[key] = places
        return places


def row_gradients(
    losses: Tensor, parameters: Mapping[str, nn.Parameter], sketch: Sketch
) -> tuple[Tensor, Tensor]:
    """Every row's gradient: its sketch float64[B, dimension], its exact squared norm float64[B].

    One backward pass per row, each through the graph of all rows: for a large model give one row at
    a time. The graph is freed with the last row.

    Args:
        losses: [B], with their graph; a parameter that a row does not depend on has gradient 0.
        parameters: the subset, from `gradient_parameters`.
        sketch: of the same subset.
    """
    rows = [
        _sketched(loss, parameters, sketch, keep_graph=row < len(losses) - 1)
        for row, loss in enumerate(losses)
    ]
    sketches, squares = zip(*rows, strict=True)
    return torch.stack(sketches), torch.stack(squares)


def batch_gradient(loss: Tensor, parameters: Mapping[str, nn.Parameter], sketch: Sketch) -> Tensor:
    """The sketched gradient float64[dimension] of one scalar, whose graph is freed."""
    return _sketched(loss, parameters, sketch, keep_graph=False)[0]


def _sketched(
    loss: Tensor, parameters: Mapping[str, nn.Parameter], sketch: Sketch, *, keep_graph: bool
) -> tuple[Tensor, Tensor]:
    found = torch.autograd.grad(
        loss, tuple(parameters.values()), retain_graph=keep_graph, allow_unused=True
    )
    gradients = [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(parameters.values(), found, strict=True)
    ]
    norms = [torch.linalg.vector_norm(gradient, dtype=torch.float64) for gradient in gradients]
    return sketch(gradients), torch.stack(norms).square().sum()
