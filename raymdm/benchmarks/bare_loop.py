"""The loop one would write without raymdm: PyTorch, AdamW, everything random drawn beforehand.

It shares the backbone and the batches with our worker, and nothing of its loop: no DeepSpeed, no
estimator, no noise by address, no files, no metrics.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from raymdm.data.collate import collate
from raymdm.data.stream import read_steps
from raymdm.diffusion import Estimator
from raymdm.training.job import Job
from raymdm.training.schedule import learning_rate
from raymdm.training.starting import initial_model


@dataclass(frozen=True)
class Batch:
    """A step with its masks drawn: the views of all rows below each other.

    Attributes:
        corrupted: int64[R, L], mask tokens in place.
        attention_mask: bool[R, L].
        predicted: bool[R, L], M of them true.
        targets: int64[M], the tokens there.
        factors: fp32[M], what each cross-entropy counts in the step's loss.
        tokens: real tokens of the rows, each row counted once.
    """

    corrupted: Tensor
    attention_mask: Tensor
    predicted: Tensor
    targets: Tensor
    factors: Tensor
    tokens: int


def draw_batches(job: Job, estimator: Estimator, steps: int, device: torch.device) -> list[Batch]:
    """The first steps of the run, with the run's own rates and masks.

    The factors are written out from the definition of a step's loss: the mean over rows and views
    of cross-entropies times coefficient and importance weight, over the response length.
    """
    seed, count = job.config.seed, job.config.training.batch_size
    batches = []
    for rows in read_steps(job.train, job.order, 0, steps):
        t = estimator.draw_time(seed, rows.step, count)
        part = collate(
            rows.input_ids,
            rows.prompt_lengths,
            rows.samples,
            pad_token_id=job.shape.pad_token_id,
            eos_token_id=job.shape.eos_token_id,
            pad_supervision=job.config.data.pad_supervision,
            max_length=job.manifest.max_length,
            delimiters=rows.delimiters,
            syntax=rows.syntax,
        )
        drawn = estimator.views(part, t, estimator.draw_noise(seed, rows.epochs, part))
        views, predicted = len(drawn.predicted), drawn.predicted.flatten(0, 1)
        response = estimator.lengths(part).numpy()
        # 1/n for each row, or one n for the batch.
        lengths = response * count if estimator.normalize == "sample" else response.sum()
        factor = np.tile(estimator.weights(part, t) / lengths / views, views)[:, None]
        factor = factor * drawn.coefficients.flatten(0, 1).numpy()
        ids = part.input_ids.repeat(views, 1)
        batches.append(
            Batch(
                ids.masked_fill(drawn.hidden.flatten(0, 1), job.shape.mask_token_id).to(device),
                part.attention_mask.repeat(views, 1).to(device),
                predicted.to(device),
                ids[predicted].to(device),
                torch.from_numpy(factor).float()[predicted].to(device),
                int(part.attention_mask.sum()),
            )
        )
    return batches


class BareLoop:
    """Model and optimiser of the plain loop."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job = job
        self.training = job.config.training
        self.model = initial_model(job.config, job.shape).to(device)
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {
                    "params": [p for p in self.parameters if p.ndim > 1],
                    "weight_decay": self.training.weight_decay,
                },
                {"params": [p for p in self.parameters if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=self.training.learning_rate,
            betas=(self.training.betas[0], self.training.betas[1]),
        )
        self.done = 0

    def step(self, batch: Batch) -> float:
        """One optimiser step; its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.training, self.done, self.job.steps)
        self.optimizer.zero_grad()
        logits = self.model(batch.corrupted, batch.attention_mask, select=batch.predicted)
        losses = functional.cross_entropy(logits, batch.targets, reduction="none")
        loss = (losses * batch.factors).sum()
        loss.backward()
        if self.training.gradient_clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.training.gradient_clip)
        self.optimizer.step()
        self.done += 1
        return loss.item()
