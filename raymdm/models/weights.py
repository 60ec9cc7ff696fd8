"""Where a model's weights come from, tensor by tensor: a seed, or the files of a checkpoint.

Taking one tensor at a time lets each worker of a sharded run hold no more than its own share.
"""

import math
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from raymdm.diffusion.noise import torch_generator
from raymdm.errors import CheckpointError
from raymdm.models.backbone import Backbone
from raymdm.models.layout import Layout
from raymdm.models.shape import ModelShape

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Number formats by their names in a configuration."""
_SHOWN = 5
_LOOKED_AT = 1024


class Weights(Protocol):
    """All weights of a model."""

    shape: ModelShape

    def tensor(self, name: str) -> Tensor:
        """The weight of one of our parameters, on the CPU."""


class SeededWeights:
    """New weights, a pure function of (shape, seed), fp32.

    Normal weights of the given standard deviation; the two projections that write into the residual
    stream are scaled by 1/sqrt(2 · layers), so that its variance does not grow with depth. Norms
    are one, biases zero.
    """

    def __init__(self, shape: ModelShape, seed: int, initializer_std: float) -> None:
        self.shape, self.seed, self.std = shape, seed, initializer_std
        parameters = empty_model(shape).named_parameters()
        self._sizes = {name: (index, p.shape) for index, (name, p) in enumerate(parameters)}

    def tensor(self, name: str) -> Tensor:
        """The weight, drawn from the `init` stream at the parameter's place in the model."""
        index, size = self._sizes[name]
        if len(size) == 1:
            return torch.zeros(size) if name.endswith("bias") else torch.ones(size)
        std = self.std
        if name.endswith(("attention.output.weight", "down.weight")):
            std /= math.sqrt(2 * self.shape.layers)
        generator = torch_generator(self.seed, "init", index)
        return torch.empty(size).normal_(0.0, std, generator=generator)


class FolderWeights:
    """Weights of a folder's safetensors files, mapped into memory and read where they are used.

    All workers of a node that map the same files share their pages. An embedding (and a head) of
    `stored_rows` rows grows to the shape's.

    Raises:
        CheckpointError: no files, a broken one, or tensors that are missing, left over or of
            another size than `config.json` says; they are named.
    """

    def __init__(self, folder: Path, shape: ModelShape, layout: Layout, stored_rows: int) -> None:
        self.folder, self.shape, self.layout = folder, shape, layout
        self._place, self._stored = _contents(folder)
        self._sizes = {name: p.shape for name, p in empty_model(shape).named_parameters()}
        problems = self._problems(stored_rows)
        if problems:
            more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            raise CheckpointError(
                f"{folder}: tensors do not fit config.json: {'; '.join(problems[:_SHOWN])}{more}"
            )

    def tensor(self, name: str) -> Tensor:
        """The weight as stored; rows that the vocabulary gained are the mean of the others."""
        published = self.layout.name(name)
        # A file is mapped for as long as a tensor of it is used, not for as long as this lives.
        with safe_open(self._place[published], framework="pt") as file:
            stored: Tensor = file.get_tensor(published)
        missing = self._sizes[name][0] - len(stored)
        if not missing:
            return stored
        mean = stored.double().mean(0, keepdim=True).to(stored.dtype)
        return torch.cat([stored, mean.expand(missing, -1)])

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with the first values of any tensor."""
        found = blake2b(digest_size=8)
        for name, path in sorted(self._place.items()):
            with safe_open(path, framework="pt") as file:
                part = file.get_tensor(name).flatten()[:_LOOKED_AT]
            found.update(name.encode() + part.contiguous().view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def _problems(self, stored_rows: int) -> list[str]:
        wanted = {self.layout.name(name): tuple(size) for name, size in self._sizes.items()}
        for module in ("embedding", "head"):
            name = self.layout.name(f"{module}.weight")
            if name in wanted:
                wanted[name] = (stored_rows, self.shape.hidden_size)
        ignored = set() if "head.weight" in self._sizes else {self.layout.name("head.weight")}
        problems = [f"missing {name}" for name in wanted if name not in self._place]
        for name, found in self._stored.items():
            if name not in wanted:
                # Rotation frequencies are computed; older files hold them all the same.
                if name not in ignored and not name.endswith("rotary_emb.inv_freq"):
                    problems.append(f"extra {name}")
            elif found != wanted[name]:
                problems.append(f"{name} is {found}, expected {wanted[name]}")
        return problems


def empty_model(shape: ModelShape) -> Backbone:
    """A backbone without memory for its weights, on the meta device."""
    with torch.device("meta"):
        return Backbone(shape)


def assemble(
    weights: Weights, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Backbone:
    """The whole model, each weight moved to the device as it is read."""
    model = empty_model(weights.shape)
    for name, _ in list(model.named_parameters()):
        module, _, leaf = name.rpartition(".")
        tensor = weights.tensor(name).to(device, dtype)
        setattr(model.get_submodule(module), leaf, nn.Parameter(tensor))
    model.tie()
    return model


def _contents(folder: Path) -> tuple[dict[str, Path], dict[str, tuple[int, ...]]]:
    """Of every stored tensor its file and its size; no weights are read."""
    paths = sorted(folder.glob("model*.safetensors"))
    if not paths:
        raise CheckpointError(f"{folder}: no model*.safetensors (pickled weights are not loaded)")
    place: dict[str, Path] = {}
    sizes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - the file is no mapping
                    place[name] = path
                    sizes[name] = tuple(file.get_slice(name).get_shape())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    return place, sizes


def state_of(model: nn.Module) -> Mapping[str, Tensor]:
    """A whole model's weights by our names; a tied one is there once."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}
