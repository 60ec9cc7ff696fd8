"""The worker of supervised training, the same under Ray Train and in a single process.

In the order things happen: model from the seed, density of the mask rate (probed once), DeepSpeed
engine, checkpoint if there is one, then per optimiser step: this worker's rows, their mask rates
and masks by address, forward and backward in micro-batches, one global sum, one update. In that sum
the workers also agree whether to stop.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed

from raymdm.data.batching import micro_batches
from raymdm.data.collate import collate
from raymdm.data.stream import StepRows
from raymdm.diffusion import Estimator, Rows, TimeDensity, make_estimator
from raymdm.diffusion.compose import needs_probe
from raymdm.diffusion.passes import count_passes
from raymdm.errors import RunError
from raymdm.training.checkpoint import Checkpoints
from raymdm.training.engine import gather_slots, global_sum, start_engine, step_engine
from raymdm.training.engine_run import EngineRun, Notice, run_to_end
from raymdm.training.job import Job, Outcome
from raymdm.training.metrics import peak_memory_bytes
from raymdm.training.probing import shared_density
from raymdm.training.schedule import learning_rate
from raymdm.training.seeds import seed_of
from raymdm.training.starting import sharded_model, trained_model
from raymdm.training.stream import TrainingStream
from raymdm.training.utilisation import peak_operations, step_operations
from raymdm.training.validation import Validation


def train_worker(
    job: Job,
    batches: Callable[[int], Iterator[StepRows]],
    checkpoints: Checkpoints,
    notice: Notice | None = None,
) -> Outcome:
    """Train on this worker until the last step, the job's pause, divergence or a wish to stop.

    Args:
        job: the run.
        batches: from the first step to do, this worker's rows of every step.
        checkpoints: where they are kept.
        notice: why a node of the workers goes away, if one does; all ranks call it together.
    """
    worker = Worker(job, checkpoints, notice)

    def from_here() -> Iterator[StepRows]:
        # Opened at the first step: a checkpoint of the last one leaves only the end to be done.
        yield from batches(worker.done)

    rows = from_here()
    return run_to_end(worker, lambda: worker.step(worker.wait_for(rows)))


class Worker(EngineRun):
    """A run that trains on rows with the estimator of its configuration."""

    def __init__(self, job: Job, checkpoints: Checkpoints, notice: Notice | None = None) -> None:
        super().__init__(job, checkpoints, notice)
        self.peak = peak_operations(self.device, job.config)
        self.validation = Validation(job, self.device, self.micro_batch)
        self._waited = 0.0

    def start(self) -> None:
        """Model, density and engine."""
        job, config = self.job, self.job.config
        share = config.training.batch_size // self.workers
        self.micro_batch = min(config.training.micro_batch_size or share, share)
        self.accumulation = math.ceil(share / self.micro_batch)
        # Under ZeRO 3 no worker holds a whole model.
        whole = config.deepspeed.zero_stage < 3
        model = trained_model(config, job.shape, self.device) if whole else None
        density: TimeDensity | None = None
        if needs_probe(config.estimator):
            if self.first:
                job.run.write_status(message="probing the starting model for its density of t")
            density = shared_density(job, model, self.device)
        if model is None:
            model = sharded_model(config, job.shape)
        self.stream = TrainingStream(config, job.run, make_estimator(config.estimator, density))
        self.engine: Any = start_engine(model, config, self.micro_batch, self.accumulation)

    def state(self) -> dict[str, Any]:
        """Of the estimator."""
        return self.stream.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Of the estimator."""
        self.stream.restore(state)

    def passes(self) -> dict[str, int]:
        """What the steps done took, the probe included."""
        batch_size, rows = self.job.config.training.batch_size, len(self.job.train)
        passes = count_passes(self.job.config.estimator, batch_size, self.done, rows)
        return {
            "forwards": passes.forwards,
            "backwards": passes.backwards,
            "probe_forwards": passes.probe_forwards,
        }

    @property
    def estimator(self) -> Estimator:
        """The composition as of now: an adaptive density changes it."""
        return self.stream.estimator

    def wait_for(self, rows: Iterator[StepRows]) -> StepRows:
        """The next step's rows, and the time it took to get them.

        Raises:
            RunError: the stream ended early.
        """
        started = time.monotonic()
        found = next(rows, None)
        if found is None:
            raise RunError(
                f"the data stream ended before step {self.done + 1} of {self.job.steps}; continue "
                "with --resume, and please report this"
            )
        self._waited = time.monotonic() - started
        return found

    def step(self, rows: StepRows) -> str | None:
        """One optimiser step; what was wrong with it, if the loss or gradient is not finite."""
        config = self.job.config
        step, estimator = self.done, self.estimator
        all_t = estimator.draw_time(seed_of(config, "time"), step, config.training.batch_size)
        t = all_t[rows.slots]
        batch = self.collate(rows)
        weight = estimator.weights(batch, t)
        noise = estimator.draw_noise(seed_of(config, "mask"), rows.epochs, batch)
        denominators = estimator.row_denominators(batch).double().numpy()
        (denominator,) = global_sum(denominators.sum(), device=self.device)
        offsets = self.stream.offsets(t, weight, denominators)
        rate = learning_rate(config.training, step, self.job.steps)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate

        view_losses = np.empty((estimator.law.views, len(batch)))
        lengths = batch.attention_mask.sum(-1).numpy()
        forwards = micro_batches(lengths, self.micro_batch, config.training.batching)
        for number, chosen in enumerate(forwards, start=1):
            part = batch.take(chosen)
            values = estimator.view_losses(
                self.engine,
                self.job.shape.mask_token_id,
                part.to(self.device),
                t[chosen],
                noise[:, chosen, : part.input_ids.shape[1]],
            )
            view_losses[:, chosen] = values.detach().double().cpu().numpy()
            weighted = values.mean(0) * torch.from_numpy(weight[chosen]).to(values)
            # A control variate is added as numbers: it moves the loss, not the gradient.
            controlled = weighted + torch.from_numpy(offsets[chosen]).to(values)
            # DeepSpeed averages over workers and accumulation steps; ours is one global sum.
            scale = self.workers * self.accumulation / denominator
            self.engine.backward(controlled.sum() * scale)
            if number < len(forwards):
                self.engine.step()
        gathered = gather_slots(
            np.vstack([weight, offsets, denominators, view_losses]),
            rows.slots,
            config.training.batch_size,
            self.device,
        )
        views = estimator.law.views
        operations = views * step_operations(
            self.job.shape, lengths, float((t * batch.response_lengths.numpy()).sum())
        )
        tokens, operations, *flags = global_sum(
            lengths.sum(), operations, *self.stop_signal.flags(self.first), device=self.device
        )
        all_weight, all_offsets, all_denominators, all_losses = np.split(gathered, [1, 2, 3])
        loss = float((all_weight[0] * all_losses.mean(0) + all_offsets[0]).sum() / denominator)
        if not math.isfinite(loss):
            bad = rows.samples[~np.isfinite(view_losses).all(0)]
            return self._diverged(f"the loss is {loss}", bad)
        norm = step_engine(self.engine)
        if not math.isfinite(norm):
            return self._diverged(f"the gradient norm is {norm}", rows.samples[:0])
        self.done += 1
        noise_columns = self.stream.update(
            self.done, all_t, all_weight[0], all_losses, all_denominators[0]
        )
        self._after_step(
            self.job.order.epoch(step), loss, norm, rate, tokens, operations, noise_columns
        )
        self.stop_reason = self.stop_signal.reason(*flags)
        return None

    def collate(self, rows: StepRows) -> Rows:
        """Rows of a step as one batch, on the CPU."""
        return collate(
            rows.input_ids,
            rows.prompt_lengths,
            rows.samples,
            pad_token_id=self.job.shape.pad_token_id,
            eos_token_id=self.job.shape.eos_token_id,
            pad_supervision=self.job.config.data.pad_supervision,
            max_length=self.job.manifest.max_length,
            delimiters=rows.delimiters,
            syntax=rows.syntax,
        )

    def _after_step(
        self,
        epoch: int,
        loss: float,
        norm: float,
        rate: float,
        tokens: float,
        operations: float,
        noise: dict[str, float],
    ) -> None:
        training = self.job.config.training
        saves = self.is_due(training.checkpoint_every)
        self.measured = float("nan")
        if self.is_scored():
            self.note_score(self.validation.nelbo_per_token(self.engine))
        if self.sink is not None:
            seconds = time.monotonic() - self.clock
            self.sink.log(
                step=self.done,
                epoch=epoch,
                loss=loss,
                gradient_norm=norm,
                learning_rate=rate,
                tokens_per_second=tokens / seconds,
                samples_per_second=training.batch_size / seconds,
                mfu=operations / seconds / (self.workers * self.peak),
                data_wait_seconds=self._waited,
                peak_memory_bytes=peak_memory_bytes(self.device),
                validation_nelbo=self.measured,
                **noise,
            )
        if saves:
            self.save_checkpoint()
        self.clock = time.monotonic()

    def _diverged(self, what: str, samples: Any) -> str:
        """The message of a diverged run, with the offending rows of all workers."""
        gathered: list[Any] = [None] * self.workers
        torch.distributed.all_gather_object(gathered, [int(s) for s in samples])
        rows = sorted(sample for part in gathered for sample in part)
        ids = self.job.train.names(rows[:16])
        where = f" (samples {', '.join(ids)} of {self.job.train.path})" if rows else ""
        return (
            f"step {self.done + 1}: {what}{where}; last good checkpoint: {self.last_good()}; try a "
            "smaller learning rate or more warm-up"
        )
