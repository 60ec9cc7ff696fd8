"""What every run of a DeepSpeed engine has besides its steps: its start, checkpoints, model, end.

`Worker` (worker.py) trains on rows; reinforcement learning (`raymdm.reinforcement`) has a worker of
its own. Both begin from the newest checkpoint if there is one, agree on stopping in a global sum of
every step, and leave the same run directory.
"""

import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from raymdm.config import Config
from raymdm.config.loading import fingerprint
from raymdm.errors import CheckpointError
from raymdm.models import Backbone, save_model
from raymdm.training.agreement import first_says
from raymdm.training.checkpoint import (
    Checkpoints,
    Progress,
    bring_back,
    load_engine,
    read_progress,
    save_engine,
)
from raymdm.training.engine import full_state
from raymdm.training.job import Job, Outcome
from raymdm.training.metrics import MetricsSink
from raymdm.training.run_directory import identity, write_json
from raymdm.training.stopping import StopSignal

Notice = Callable[[], str | None]
"""Says why a node of the workers goes away, if one does; all ranks call it together."""


def run_to_end(run: "EngineRun", step: Callable[[], str | None]) -> Outcome:
    """Step until the last one, the job's pause, divergence or a wish to stop.

    Args:
        run: the state that `step` changes.
        step: does the next one, and says what was wrong with it if its numbers are not finite.
    """
    job = run.job
    try:
        while run.done < job.until:
            problem = step()
            if problem is not None:
                return run.close("diverged", problem)
            if run.stop_reason is not None and run.done < job.steps:
                return run.close("stopped", run.stop_reason)
        if run.done < job.steps:
            return run.close("stopped", f"paused after step {run.done}, as asked")
        return run.close("finished")
    except BaseException:
        run.abandon()
        raise


class EngineRun:
    """State of one worker between steps; every rank must call each method together.

    Attributes:
        engine: DeepSpeed's, made by `start`.
        done: steps so far.
        best: the lowest score that was measured on held-out rows; `measured` the last step's, NaN
            where it was not.
        stop_reason: why to stop after this step, if there is a reason.
        sink: of the metrics, on rank 0.
    """

    engine: Any

    def __init__(self, job: Job, checkpoints: Checkpoints, notice: Notice | None = None) -> None:
        self.job, self.checkpoints = job, checkpoints
        torch.set_num_threads(job.config.training.threads_per_worker)
        self.workers = torch.distributed.get_world_size()
        self.first = torch.distributed.get_rank() == 0
        self.device = pick_device(job.config)
        self.stop_signal = StopSignal(job.run, notice)
        self.stop_reason: str | None = None
        self.done = 0
        self.last_checkpoint: int | None = None
        self.best, self.measured = float("inf"), float("nan")
        with checkpoints.newest() as folder:
            progress = None if folder is None else read_progress(folder)
            if folder is not None and self.first:
                bring_back(folder, job.run)
            self.start()
            if folder is not None and progress is not None:
                self._check_same(progress)
                load_engine(self.engine, folder, progress)
                self.done = self.last_checkpoint = progress["step"]
                self.best = progress["best"]
                self.restore(progress["stream"])
        self.sink = self.open_sink() if self.first else None
        self.clock = time.monotonic()

    def start(self) -> None:
        """Make the engine, and what else the steps need."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the run's own state, as JSON can say it."""
        raise NotImplementedError

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        raise NotImplementedError

    def passes(self) -> dict[str, int]:
        """Forwards, backwards and probe_forwards of the steps done, for `status.json`; steps that a
        resume repeats count once.
        """
        raise NotImplementedError

    def open_sink(self) -> MetricsSink:
        """Where rank 0 writes what is measured."""
        return MetricsSink(self.job.run, self.job.config, self.job.steps, self.done)

    def is_due(self, every: int) -> bool:
        """Whether what is done after every so many steps (0: never) is due after this one."""
        return bool(every) and self.done % every == 0

    def is_scored(self) -> bool:
        """Whether held-out rows are scored after this step: the last one, as often as asked, and at
        a checkpoint that may be kept as the best.
        """
        training = self.job.config.training
        best = self.job.config.keep == "best" and self.is_due(training.checkpoint_every)
        return self.done == self.job.until or self.is_due(training.validate_every) or best

    def note_score(self, score: float) -> None:
        """Take a score of held-out rows, lower being better; the best one's model is written."""
        self.measured = score
        if score < self.best:
            self.best = score
            if self.job.config.keep == "best":
                self._export()

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
            self.job.run.write_status(**self.passes())
            self.sink.close("interrupted" if state == "stopped" else state, message)
        return outcome

    def abandon(self) -> None:
        """Keep the metrics of a run that an error or a signal ends."""
        if self.sink is not None:
            self.sink.close("interrupted", "stopped before the last step")

    def save_checkpoint(self) -> None:
        """Write a checkpoint of the steps done."""
        started = time.monotonic()
        progress = {
            "step": self.done,
            "workers": self.workers,
            "best": self.best,
            "score": self.measured,
            "start": self.job.start,
            "stream": self.state(),
            **self._origin(),
        }
        if self.sink is not None:
            # Before the checkpoint: a resume drops later rows, but cannot bring back lost ones.
            self.sink.flush()
            self.sink.report_status("running")
        self.checkpoints.save(
            self.done,
            {} if math.isnan(self.measured) else {"score": self.measured},
            lambda folder: save_engine(self.engine, folder, progress, self.job.run),
        )
        self.last_checkpoint = self.done
        if self.sink is not None:
            self.sink.amend(checkpoint_seconds=time.monotonic() - started)

    def last_good(self) -> str:
        """The last checkpoint, in words."""
        return "none" if self.last_checkpoint is None else f"step {self.last_checkpoint}"

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
        """The checkpoint is this run's; and the start, where it still counts, is as it was: frozen
        weights are in no checkpoint, and a policy is held to its reference.
        """
        ours = self._origin()
        if {key: progress.get(key) for key in ours} != ours:
            raise CheckpointError(
                f"{self.checkpoints.store.place} holds checkpoints of a run with another "
                "configuration or other data; choose another checkpoints.storage or run_dir"
            )
        if self.job.start is not None and progress.get("start") != self.job.start:
            raise CheckpointError(
                f"model.init_from {self.job.config.model.init_from}: not the weights that "
                f"{self.job.run.path} began with; restore them or choose another run_dir"
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
