"""What a published layout is: tensor names and configuration keys, to and from ours."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raymdm.errors import CheckpointError
from raymdm.models.shape import ModelShape

Configuration = Mapping[str, Any]
"""The content of a `config.json`."""


@dataclass(frozen=True)
class Layout:
    """A family's names.

    Attributes:
        blocks: published prefix of the blocks, before their number.
        top: our module outside the blocks -> its published name.
        block: our module inside a block -> its published name there.
        settings: keys that this backbone has built in, with the only value it can read.
        write: a shape's configuration keys, `settings` left out.
    """

    blocks: str
    top: Mapping[str, str]
    block: Mapping[str, str]
    settings: Mapping[str, Any]
    write: Callable[[ModelShape], dict[str, Any]]

    def name(self, parameter: str) -> str:
        """The published name of one of our parameters."""
        module, _, leaf = parameter.rpartition(".")
        if module in self.top:
            return f"{self.top[module]}.{leaf}"
        _, index, inside = module.split(".", 2)
        return f"{self.blocks}.{index}.{self.block[inside]}.{leaf}"

    def configuration(self, shape: ModelShape) -> dict[str, Any]:
        """The `config.json` of a shape: ours, over what the checkpoint came with."""
        kept = {key: value for key, value in shape.published.items() if key != "dtype"}
        return {**self.settings, **kept, **self.write(shape)}

    def check(self, config: Configuration, where: object) -> None:
        """Raises CheckpointError for a setting that the backbone lacks."""
        for key, value in self.settings.items():
            if key != "architectures" and config.get(key, value) != value:
                raise CheckpointError(
                    f"{where}: {key} is {config[key]!r}; this backbone has {value!r} built in"
                )
