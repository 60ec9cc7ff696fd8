"""The same run with other settings that save memory, so that one sees what would fit."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from raymdm.config import Config
from raymdm.diagnosis.lengths import Lengths
from raymdm.diagnosis.memory import Estimate, estimate
from raymdm.models import ModelShape

RANK = 16
CHUNK = 256


@dataclass(frozen=True)
class Alternative:
    """Other settings of the states, under three settings of the activations.

    Attributes:
        name: what differs.
        configured: with the run's own settings of activations.
        recomputed: with `activation_checkpointing`.
        least: and with one row a forward and logits in chunks.
    """

    name: str
    configured: Estimate
    recomputed: Estimate
    least: Estimate


def list_alternatives(config: Config, shape: ModelShape, lengths: Lengths) -> list[Alternative]:
    """All of them."""
    recompute = {"activation_checkpointing": True}
    least = {**recompute, "micro_batch_size": 1, "head_chunk": CHUNK}
    return [
        Alternative(
            name,
            estimate(changed, shape, lengths),
            estimate(changed_section(changed, "training", recompute), shape, lengths),
            estimate(changed_section(changed, "training", least), shape, lengths),
        )
        for name, changed in _states(config)
    ]


def changed_section(config: Config, section: str, values: dict[str, Any]) -> Config:
    """The configuration with some keys of one section set."""
    part = getattr(config, section).model_copy(update=values)
    return config.model_copy(update={section: part})


def _states(config: Config) -> Iterator[tuple[str, Config]]:
    def stage(number: int, offload: str = "none") -> Config:
        return changed_section(config, "deepspeed", {"zero_stage": number, "offload": offload})

    for number in range(4):
        yield f"ZeRO {number}", stage(number)
    yield "ZeRO 2, optimizer offloaded", stage(2, "optimizer")
    yield "ZeRO 3, parameters offloaded", stage(3, "parameters")
    adapters = config.model.lora.model_copy(update={"rank": RANK})
    lora = changed_section(config, "model", {"lora": adapters})
    if config.model.lora.rank is None:
        yield f"LoRA rank {RANK}", lora
    if config.training.precision == "fp32":
        yield "bf16", changed_section(config, "training", {"precision": "bf16"})
        yield f"bf16, LoRA rank {RANK}", changed_section(lora, "training", {"precision": "bf16"})
