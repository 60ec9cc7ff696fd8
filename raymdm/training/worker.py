"""The training loop of one worker, the same under Ray Train and in a single process.

In the order things happen: model from the seed, density of the mask rate (probed once), DeepSpeed
engine, checkpoint if there is one, then per optimiser step: this worker's rows, their mask rates
and masks by address, forward and backward in micro-batches, one global sum, one update.
"""

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed

from raymdm.config import Config
from raymdm.data.batching import micro_batches
from raymdm.data.collate import collate
from raymdm.data.stream import StepRows
from raymdm.diffusion import Estimator, Rows, TimeDensity, make_estimator
from raymdm.diffusion.compose import needs_probe
from raymdm.errors import CheckpointError
from raymdm.models import Backbone, save_model
from raymdm.training.checkpoint import (
    Progress,
    Reporter,
    has_frozen,
    load_engine,
    save_engine,
)
from raymdm.training.engine import full_state, gather_slots, global_sum, start_engine, step_engine
from raymdm.training.job import Job, Outcome
from raymdm.training.metrics import MetricsSink
from raymdm.training.probing import shared_density
from raymdm.training.run_directory import write_json
from raymdm.training.schedule import learning_rate
from raymdm.training.starting import sharded_model, trained_model
from raymdm.training.stream import TrainingStream
from raymdm.training.validation import Validation


def train_worker(
    job: Job, batches: Callable[[int], Iterator[StepRows]], reporter: Reporter
) -> Outcome:
    """Train on this worker until the last step or divergence.

    Args:
        job: the run.
        batches: from the first step to do, this worker's rows of every step.
        reporter: keeps the checkpoints.
    """
    worker = Worker(job, reporter)
    try:
        # A checkpoint of the last step leaves only the end of the run to be done.
        for rows in batches(worker.done) if worker.done < job.steps else ():
            problem = worker.step(rows)
            if problem is not None:
                return worker.close("diverged", problem)
            if worker.done == job.steps:
                break
        return worker.close("finished")
    except BaseException:
        worker.abandon()
        raise


class Worker:
    """State of one worker between steps."""

    def __init__(self, job: Job, reporter: Reporter) -> None:
        self.job, self.reporter = job, reporter
        config = job.config
        torch.set_num_threads(config.training.threads_per_worker)
        self.workers = torch.distributed.get_world_size()
        self.first = torch.distributed.get_rank() == 0
        self.device = pick_device(config)
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
        self.done = 0
        self.last_checkpoint: int | None = None
        self.best, self.measured = float("inf"), float("nan")
        progress = reporter.restore(lambda folder: load_engine(self.engine, folder, self.workers))
        if progress is not None:
            self._check_start(progress)
            self.done = self.last_checkpoint = progress["step"]
            self.best = progress["best"]
            self.stream.restore(progress["stream"])
        self.validation = Validation(job, self.device, self.micro_batch)
        self.sink = MetricsSink(job.run, config, job.steps, self.done) if self.first else None
        self._clock = time.monotonic()

    @property
    def estimator(self) -> Estimator:
        """The composition as of now: an adaptive density changes it."""
        return self.stream.estimator

    def step(self, rows: StepRows) -> str | None:
        """One optimiser step; what was wrong with it, if the loss or gradient is not finite."""
        config = self.job.config
        step, estimator = self.done, self.estimator
        all_t = estimator.draw_time(config.seed, step, config.training.batch_size)
        t = all_t[rows.slots]
        batch = self.collate(rows)
        weight = estimator.weights(batch, t)
        noise = estimator.draw_noise(config.seed, rows.epochs, batch)
        denominators = estimator.row_denominators(batch).double().numpy()
        (denominator,) = global_sum(denominators.sum(), device=self.device)
        offsets = self.stream.offsets(t, weight, denominators)
        rate = learning_rate(config.training, step, self.job.steps)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate

        view_losses = np.empty((estimator.law.views, len(batch)))
        forwards = micro_batches(
            batch.attention_mask.sum(-1).numpy(), self.micro_batch, config.training.batching
        )
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
        (tokens,) = global_sum(batch.attention_mask.sum(), device=self.device)
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
        self._after_step(self.job.order.epoch(step), loss, norm, rate, tokens, noise_columns)
        return None

    def close(self, state: str, message: str | None = None) -> Outcome:
        """Final checkpoint and model of a finished run; metrics of any."""
        outcome = Outcome(state, self.done, message)  # type: ignore[arg-type]
        if state == "finished":
            if self.job.config.keep != "metrics" and self.last_checkpoint != self.done:
                self._checkpoint({"validation_nelbo": self.measured})
            if self.job.config.keep != "best" or not math.isfinite(self.best):
                self._export()
        if self.sink is not None:
            self.sink.close(state, message)
        return outcome

    def abandon(self) -> None:
        """Keep the metrics of a run that an error or a signal ends."""
        if self.sink is not None:
            self.sink.close("interrupted", "stopped before the last step")

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
        noise: dict[str, float],
    ) -> None:
        training = self.job.config.training
        last = self.done == self.job.steps
        saves = training.checkpoint_every and self.done % training.checkpoint_every == 0
        scores = training.validate_every and self.done % training.validate_every == 0
        measured = float("nan")
        # A checkpoint that may be kept as the best needs its score.
        if last or scores or (saves and self.job.config.keep == "best"):
            measured = self.validation.nelbo_per_token(self.engine)
            if measured < self.best:
                self.best = measured
                if self.job.config.keep == "best":
                    self._export()
        if self.sink is not None:
            now = time.monotonic()
            self.sink.log(
                step=self.done,
                epoch=epoch,
                loss=loss,
                gradient_norm=norm,
                learning_rate=rate,
                tokens_per_second=tokens / (now - self._clock),
                validation_nelbo=measured,
                **noise,
            )
        if saves:
            self._checkpoint({} if math.isnan(measured) else {"validation_nelbo": measured})
        self._clock = time.monotonic()
        self.measured = measured

    def _checkpoint(self, metrics: dict[str, float]) -> None:
        progress = {
            "step": self.done,
            "workers": self.workers,
            "best": self.best,
            "start": self.job.start,
            "stream": self.stream.state(),
        }
        if self.sink is not None:
            # Before the checkpoint: a resume drops later rows, but cannot bring back lost ones.
            self.sink.flush()
        self.reporter.save(
            self.done, metrics, lambda folder: save_engine(self.engine, folder, progress)
        )
        self.last_checkpoint = self.done

    def _export(self) -> None:
        """Write `model/`: weights, configuration and tokenizer in Hugging Face layout."""
        state = full_state(self.engine)
        if state is None:
            return
        model: Backbone = self.engine.module
        written = self.job.run.path / ".model"
        shutil.rmtree(written, ignore_errors=True)
        save_model(model, written, state)
        tokenizer: Path = self.job.data_folder / "tokenizer"
        if tokenizer.is_dir():
            shutil.copytree(tokenizer, written, dirs_exist_ok=True)
        write_json(written / "training_step.json", {"step": self.done})
        shutil.rmtree(self.job.run.model, ignore_errors=True)
        written.rename(self.job.run.model)

    def _check_start(self, progress: Progress) -> None:
        """Frozen weights are in no checkpoint: they must be the ones the run began with."""
        if has_frozen(self.engine.module) and progress.get("start") != self.job.start:
            raise CheckpointError(
                f"model.init_from {self.job.config.model.init_from}: not the weights that "
                f"{self.job.run.path} began with; restore them or choose another run_dir"
            )

    def _diverged(self, what: str, samples: Any) -> str:
        """The message of a diverged run, with the offending rows of all workers."""
        gathered: list[Any] = [None] * self.workers
        torch.distributed.all_gather_object(gathered, [int(s) for s in samples])
        rows = sorted(sample for part in gathered for sample in part)
        ids = self.job.train.names(rows[:16])
        where = f" (samples {', '.join(ids)} of {self.job.train.path})" if rows else ""
        last = "none" if self.last_checkpoint is None else f"step {self.last_checkpoint}"
        return (
            f"step {self.done + 1}: {what}{where}; last good checkpoint: {last}; try a smaller "
            "learning rate or more warm-up"
        )


def pick_device(config: Config) -> torch.device:
    """The worker's own GPU where the configuration gives workers one, else the CPU."""
    if not config.cluster.gpus_per_worker:
        # DeepSpeed would otherwise take a GPU that it finds but that nobody reserved.
        os.environ["DS_ACCELERATOR"] = "cpu"
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device
