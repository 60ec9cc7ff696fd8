"""The reference that a policy is held to: the weights it started from."""

from typing import Any

import torch
from torch import Tensor

from raymdm.config import Config
from raymdm.config.decoding import DecodingSection
from raymdm.models import ModelShape
from raymdm.models.lora import adapters_off
from raymdm.policy.rows import PolicyRows
from raymdm.policy.scoring import score
from raymdm.training.engine import deepspeed_config, import_deepspeed
from raymdm.training.starting import sharded_model, trained_model


class Reference:
    """Scores rows under the start: with adapters the model without them, else a frozen copy.

    Made while the model is still as it started. Under ZeRO 3 the copy is sharded too; every rank
    must then call each method together.

    Args:
        config: of the run.
        shape: of the model.
        device: of this worker.
    """

    def __init__(self, config: Config, shape: ModelShape, device: torch.device) -> None:
        self.shape = shape
        self.copy: Any = None
        if config.model.lora.rank is not None:
            return
        if config.deepspeed.zero_stage < 3:
            self.copy = trained_model(config, shape, device).eval().requires_grad_(False)
            return
        settings = deepspeed_config(config, micro_batch=1, accumulation=1)
        engine, *_ = import_deepspeed().initialize(
            model=sharded_model(config, shape), config=settings, dist_init_required=True
        )
        engine.eval()  # which gives nothing back
        self.copy = engine

    @torch.no_grad()
    def scores(self, engine: Any, rows: PolicyRows, settings: DecodingSection) -> Tensor:
        """Log-probabilities [R, L] of rows on the device, as `raymdm.policy.scoring.score`."""
        if self.copy is not None:
            return score(self.copy, rows, settings, self.shape)
        with adapters_off(engine.module):
            return score(engine, rows, settings, self.shape)
