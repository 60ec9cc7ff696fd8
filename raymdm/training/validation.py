"""The held-out NELBO during training, on frozen noise that is the same for every run.

Of a causal model it is the exact negative log-likelihood.
"""

from typing import Any

import torch
import torch.distributed

from raymdm.data.collate import collate
from raymdm.diffusion import bound
from raymdm.training.engine import global_sum
from raymdm.training.job import Job


class Validation:
    """One worker's share of the validation rows."""

    def __init__(self, job: Job, device: torch.device, batch_size: int) -> None:
        self.job, self.device, self.batch_size = job, device, batch_size
        self.rows = None
        if job.validation is None:
            return
        rank, workers = torch.distributed.get_rank(), torch.distributed.get_world_size()
        count = min(len(job.validation), job.config.training.validation_rows)
        mine = list(range(rank, count, workers))
        self.own = len(mine)
        # Under ZeRO 3 all ranks must run equally many forwards; a filler row is not counted.
        mine += [0] * (-(-count // workers) - len(mine))
        rows = job.validation.read(mine)
        self.rows = collate(
            [row["input_ids"] for row in rows],
            [row["prompt_length"] for row in rows],
            mine,
            pad_token_id=job.shape.pad_token_id,
            eos_token_id=job.shape.eos_token_id,
        ).to(device)

    def nelbo_per_token(self, engine: Any) -> float:
        """Nats per response token over all validation rows, NaN without any; all ranks call it."""
        if self.rows is None:
            return float("nan")
        engine.eval()
        result = bound(
            engine,
            self.job.shape.mask_token_id,
            self.rows,
            causal=self.job.shape.causal,
            exact_up_to=0,
            draws=self.job.config.training.validation_draws,
            batch_size=self.batch_size,
        )
        engine.train()
        nats, tokens = global_sum(
            result.per_row[: self.own].sum(),
            int(result.tokens[: self.own].sum()),
            device=self.device,
        )
        return nats / tokens
