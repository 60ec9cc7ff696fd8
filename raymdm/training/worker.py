"""The training loop of one worker, the same under Ray Train and in a single process.

In the order things happen: model from the seed, density of the mask rate (probed once), DeepSpeed
engine, checkpoint if there is one, then per optimiser step: this worker's rows, their mask rates
and masks by address, forward and backward in micro-batches, one global sum, one update. In that sum
the workers also agree whether to stop.
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
from raymdm.config.loading import fingerprint
from raymdm.data.batching import micro_batches
from raymdm.data.collate import collate
from raymdm.data.stream import StepRows
from raymdm.diffusion import Estimator, Rows, TimeDensity, make_estimator
from raymdm.diffusion.compose import needs_probe
from raymdm.diffusion.passes import count_passes
from raymdm.errors import CheckpointError, RunError
from raymdm.models import Backbone, save_model
from raymdm.training.agreement import first_says
from raymdm.training.checkpoint import (
    Checkpoints,
    Progress,
    bring_back,
    has_frozen,
    load_engine,
    read_progress,
    save_engine,
)
from raymdm.training.engine import full_state, gather_slots, global_sum, start_engine, step_engine
from raymdm.training.job import Job, Outcome
from raymdm.training.metrics import MetricsSink, peak_memory_bytes
from raymdm.training.probing import shared_density
from raymdm.training.run_directory import identity, write_json
from raymdm.training.schedule import learning_rate
from raymdm.training.seeds import seed_of
from raymdm.training.starting import sharded_model, trained_model
from raymdm.training.stopping import StopSignal
from raymdm.training.stream import TrainingStream
from raymdm.training.utilisation import peak_operations, step_operations
from raymdm.training.validation import Validation


def train_worker(
    job: Job,
    batches: Callable[[int], Iterator[StepRows]],
    checkpoints: Checkpoints,
    notice: Callable[[], str | None] | None = None,
) -> Outcome:
    """Train on this worker until the last step, the job's pause, divergence or a wish to stop.

    Args:
        job: the run.
        batches: from the first step to do, this worker's rows of every step.
        checkpoints: where they are kept.
        notice: why a node of the workers goes away, if one does; all ranks call it together.
    """
    worker = Worker(job, checkpoints, notice)
    try:
        # A checkpoint of the last step leaves only the end of the run to be done.
        rows = batches(worker.done) if worker.done < job.until else iter(())
        while worker.done < job.until:
            problem = worker.step(worker.wait_for(rows))
            if problem is not None:
                return worker.close("diverged", problem)
            if worker.stop_reason is not None and worker.done < job.steps:
                return worker.close("stopped", worker.stop_reason)
        if worker.done < job.steps:
            return worker.close("stopped", f"paused after step {worker.done}, as asked")
        return worker.close("finished")
    except BaseException:
        worker.abandon()
        raise


class Worker:
    """State of one worker between steps."""

    def __init__(
        self,
        job: Job,
        checkpoints: Checkpoints,
        notice: Callable[[], str | None] | None = None,
    ) -> None:
        self.job, self.checkpoints = job, checkpoints
        config = job.config
        torch.set_num_threads(config.training.threads_per_worker)
        self.workers = torch.distributed.get_world_size()
        self.first = torch.distributed.get_rank() == 0
        self.device = pick_device(config)
        share = config.training.batch_size // self.workers
        self.micro_batch = min(config.training.micro_batch_size or share, share)
        self.accumulation = math.ceil(share / self.micro_batch)
        self.peak = peak_operations(self.device, config)
        self.stop_signal = StopSignal(job.run, notice)
        self.stop_reason: str | None = None
        self.done = 0
        self.last_checkpoint: int | None = None
        self.best, self.measured = float("inf"), float("nan")
        with checkpoints.newest() as folder:
            self._start(folder)
        self.validation = Validation(job, self.device, self.micro_batch)
        self.sink = MetricsSink(job.run, config, job.steps, self.done) if self.first else None
        self._waited, self._clock = 0.0, time.monotonic()

    def _start(self, folder: Path | None) -> None:
        """Model, density and engine, from a checkpoint if there is one."""
        job, config = self.job, self.job.config
        progress = None if folder is None else read_progress(folder)
        if folder is not None and self.first:
            bring_back(folder, job.run)
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
        if folder is not None and progress is not None:
            self._check_same(progress)
            load_engine(self.engine, folder, progress)
            self.done = self.last_checkpoint = progress["step"]
            self.best = progress["best"]
            self.stream.restore(progress["stream"])

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

    def close(self, state: str, message: str | None = None) -> Outcome:
        """Checkpoint of a finished or stopped run, model of a finished one, metrics of any."""
        outcome = Outcome(state, self.done, message)  # type: ignore[arg-type]
        keeps = state == "stopped" or (state == "finished" and self.job.config.keep != "metrics")
        if keeps and self.last_checkpoint != self.done:
            self.save_checkpoint()
        self.checkpoints.finish()
        if state == "finished":
            self._export_chosen()
        if self.sink is not None:
            self._report_passes()
            self.sink.close("interrupted" if state == "stopped" else state, message)
        return outcome

    def _report_passes(self) -> None:
        """What the steps done took, the probe included; steps that a resume repeats count once."""
        batch_size, rows = self.job.config.training.batch_size, len(self.job.train)
        passes = count_passes(self.job.config.estimator, batch_size, self.done, rows)
        self.job.run.write_status(
            forwards=passes.forwards,
            backwards=passes.backwards,
            probe_forwards=passes.probe_forwards,
        )

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
        operations: float,
        noise: dict[str, float],
    ) -> None:
        training = self.job.config.training
        last = self.done == self.job.until
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
            seconds = time.monotonic() - self._clock
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
                validation_nelbo=measured,
                **noise,
            )
        self.measured = measured
        if saves:
            self.save_checkpoint()
        self._clock = time.monotonic()

    def save_checkpoint(self) -> None:
        """Write a checkpoint of the steps done; every rank must call it."""
        started = time.monotonic()
        progress = {
            "step": self.done,
            "workers": self.workers,
            "best": self.best,
            "score": self.measured,
            "start": self.job.start,
            "stream": self.stream.state(),
            **self._origin(),
        }
        if self.sink is not None:
            # Before the checkpoint: a resume drops later rows, but cannot bring back lost ones.
            self.sink.flush()
            self.sink.report_status("running")
        self.checkpoints.save(
            self.done,
            {} if math.isnan(self.measured) else {"validation_nelbo": self.measured},
            lambda folder: save_engine(self.engine, folder, progress, self.job.run),
        )
        self.last_checkpoint = self.done
        if self.sink is not None:
            self.sink.amend(checkpoint_seconds=time.monotonic() - started)

    def _origin(self) -> dict[str, str]:
        """Whose a checkpoint is."""
        return {
            "configuration": fingerprint(identity(self.job.config.model_dump())),
            "data": self.job.data_fingerprint,
        }

    def _export_chosen(self) -> None:
        """Write `model/`, unless the best one's was written when it was measured."""
        if self.job.config.keep != "best" or not math.isfinite(self.best):
            self._export()
        elif first_says(lambda: not self.job.run.model.is_dir()):
            # Lost with the run directory; of the checkpoints the best one was kept.
            with self.checkpoints.best() as folder:
                if folder is not None:
                    progress = read_progress(folder)
                    load_engine(self.engine, folder, progress)
                    self.done = progress["step"]
                self._export()

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

    def _check_same(self, progress: Progress) -> None:
        """The checkpoint is this run's; and frozen weights, which are in none, are as they were."""
        ours = self._origin()
        if {key: progress.get(key) for key in ours} != ours:
            raise CheckpointError(
                f"{self.checkpoints.store.place} holds checkpoints of a run with another "
                "configuration or other data; choose another checkpoints.storage or run_dir"
            )
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
