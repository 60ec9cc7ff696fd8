"""One candidate of a search: its runs, trained rung by rung, scored by the held-out NELBO."""

import math
from dataclasses import replace
from typing import Any

import pandas as pd

from raymdm.command import import_modules
from raymdm.config.sweep import HalvingSection
from raymdm.errors import DataError, RunError, UserError
from raymdm.sweeps.design import Trial
from raymdm.sweeps.kept_process import KeptProcess
from raymdm.sweeps.trial import RunPath, train
from raymdm.training import RunDirectory
from raymdm.training.job import make_job


def rung_steps(steps: int, rungs: int, factor: int) -> list[int]:
    """Optimiser steps at which a candidate is looked at; the last are all of them."""
    return [math.ceil(steps / factor**left) for left in reversed(range(rungs))]


def train_until(trial: Trial, path: RunPath, steps: int) -> float:
    """Train a run up to so many steps, from its checkpoint if there is one.

    Returns:
        Its held-out NELBO there, in nats per token; infinity if it diverged.

    Raises:
        UserError: data or configuration do not fit.
    """
    run = RunDirectory(trial.config.run_dir)
    if run.status().get("state") == "diverged":
        return math.inf
    known = _measured(run, steps)
    if known is not None:
        return known
    job = make_job(trial.config, run)
    if job.validation is None:
        raise DataError(
            f"{job.data_folder} has no validation rows, by which sweep.search chooses; prepare it "
            "with a validation_fraction"
        )
    RunDirectory.open(trial.config, job.manifest.fingerprint, resume=True)
    run.write_status(arm=trial.arm, seed=trial.seed)
    outcome = train(replace(job, pause_at=steps), path)
    if outcome.state == "diverged":
        return math.inf
    found = _measured(run, steps)
    if found is None:
        raise RunError(f"{run.path}: stopped after step {outcome.step} ({outcome.message})")
    return found


def _measured(run: RunDirectory, steps: int) -> float | None:
    """The held-out NELBO after exactly so many steps, if the run has been there."""
    if not run.metrics.is_file():
        return None
    frame = pd.read_parquet(run.metrics, columns=["step", "validation_nelbo"])
    there = frame.loc[frame["step"] == steps, "validation_nelbo"].dropna()
    return float(there.iloc[-1]) if len(there) else None


class CandidateTrial(KeptProcess):
    """A step is a rung: every seed is trained up to it, and their mean is reported."""

    def setup(
        self,
        config: dict[str, Any],
        halving: HalvingSection | None,
        path: RunPath,
        folder: str,
    ) -> None:
        """Once per process: the rungs, how trials run, and where the user's modules are."""
        self.prepare(folder)
        self.rungs, self.factor = (halving.rungs, halving.factor) if halving else (1, 2)
        self.path, self.rung = path, 0

    def step(self) -> dict[str, Any]:
        """The next rung; `failed` says what a mistake of the user's was."""
        try:
            return self._step()
        except UserError as error:
            # Tune wants the metric in every result.
            return {"failed": f"{type(error).__name__}: {error}", "score": math.inf, "done": True}

    def _step(self) -> dict[str, Any]:
        runs: list[Trial] = self.config["runs"]
        first = runs[0].config
        import_modules(first.imports)
        steps = make_job(first, RunDirectory(first.run_dir)).steps
        until = rung_steps(steps, self.rungs, self.factor)[self.rung]
        scores = [train_until(trial, self.path, until) for trial in runs]
        time = self.factor**self.rung
        self.rung += 1
        # Where an earlier call stopped it, it only says again what it was stopped for.
        last = until == steps or math.inf in scores or until == self.config["stopped_at"]
        return {
            "score": sum(scores) / len(scores),
            "scores": scores,
            "steps": until,
            "complete": until == steps,
            "rung_time": time,
            "done": last,
        }

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """The next candidate begins at its first rung."""
        self.rung = 0
        return super().reset_config(new_config)
