"""What a run measures, on its way to disk and to Weights & Biases (rank 0 only)."""

import json
import resource
import sys
import time
from numbers import Real
from typing import Any

import pandas as pd
import torch

from raymdm.config import Config
from raymdm.config.loading import fingerprint
from raymdm.config.paths import without_keys
from raymdm.training.run_directory import RunDirectory

_FLUSH_SECONDS = 30.0
_STATUS_SECONDS = 0.5


class MetricsSink:
    """One row per optimiser step in `metrics.parquet`; live state in `status.json`.

    Columns: step (counted from 1), epoch, loss, gradient_norm, learning_rate, tokens_per_second,
    samples_per_second, mfu (`utilisation.py`; NaN where the device's peak is not known),
    data_wait_seconds, peak_memory_bytes and checkpoint_seconds of rank 0 (the last is how long
    training stood still; NaN without a checkpoint), seconds (of training so far, resumes and
    waiting included), validation_nelbo (nats per response token; NaN where it was not measured),
    and the noise of the stream
    (`training/stream.py`): effective_sample_size (share of the batch that the importance weights
    leave), weight_min, weight_max, variance_between_views, variance_between_rates,
    variance_between_rows (of one row's weighted loss, from the recent past), density_drift.
    """

    def __init__(self, run: RunDirectory, config: Config, steps: int, done: int) -> None:
        self.run = run
        self.steps = steps
        self.rows: list[dict[str, Any]] = []
        if done and run.metrics.exists():
            kept = pd.read_parquet(run.metrics)
            self.rows = kept[kept["step"] <= done].to_dict("records")
        self.started = time.monotonic()
        self.before = float(self.rows[-1]["seconds"]) if self.rows else 0.0
        self.first = done
        self._flushed = self._reported = self.started
        self._wandb = _start_wandb(run, config)
        self._dashboard = Dashboard(run.path.name)

    def log(self, **values: Any) -> None:
        """Add one step's row."""
        now = time.monotonic()
        seconds = {"checkpoint_seconds": float("nan"), "seconds": self.before + now - self.started}
        self.rows.append({**values, **seconds})
        self._show(values)
        if now - self._reported > _STATUS_SECONDS:
            self._reported = now
            self.report_status("running")
        if now - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def amend(self, **values: float) -> None:
        """Add to the last step's row what was measured after it."""
        if self.rows:
            self.rows[-1].update(values)
            self._show({"step": self.rows[-1]["step"], **values})

    def _show(self, values: dict[str, Any]) -> None:
        numbers = {name: value for name, value in values.items() if isinstance(value, Real)}
        measured: dict[str, Any] = {n: value for n, value in numbers.items() if value == value}
        self._dashboard.show(measured)
        if self._wandb is not None:
            self._wandb.log(measured, step=values["step"])

    def report_status(self, state: str, message: str | None = None) -> None:
        """Write where the run stands to `status.json`."""
        last = self.rows[-1] if self.rows else {"step": self.first}
        elapsed = time.monotonic() - self.started
        done = last["step"] - self.first
        self.run.write_status(
            state=state,
            message=message,
            step=last["step"],
            steps=self.steps,
            loss=last.get("loss"),
            reward=last.get("reward"),
            tokens_per_second=last.get("tokens_per_second"),
            seconds=self.before + elapsed,
            seconds_left=elapsed / done * (self.steps - last["step"]) if done else None,
        )

    def flush(self) -> None:
        """Write `metrics.parquet` in one step."""
        self._flushed = time.monotonic()
        temporary = self.run.metrics.with_name(".metrics.parquet")
        pd.DataFrame(self.rows).to_parquet(temporary, index=False)
        temporary.replace(self.run.metrics)

    def close(self, state: str, message: str | None = None) -> None:
        """Write everything; the run ends in `state`."""
        if self.rows:
            self.flush()
        self.report_status(state, message)
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if state == "finished" else 1)


class Dashboard:
    """The same columns as gauges `raymdm_…` among Ray's own metrics, which its dashboard and
    Prometheus read; nothing where Ray is not running.
    """

    def __init__(self, run: str) -> None:
        self.tags = {"run": run}
        self._gauges: dict[str, Any] | None = {} if _on_ray() else None

    def show(self, values: dict[str, float]) -> None:
        """Set the gauges to these values."""
        if self._gauges is None:
            return
        from ray.util.metrics import Gauge

        for name, value in values.items():
            if name not in self._gauges:
                self._gauges[name] = Gauge(f"raymdm_{name}", f"{name} of a run", ("run",))
            self._gauges[name].set(value, self.tags)


def peak_memory_bytes(device: torch.device) -> int:
    """Most bytes held so far: allocated on the GPU, or resident in this process without one."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _on_ray() -> bool:
    ray = sys.modules.get("ray")  # a bare process has not even imported it
    return ray is not None and ray.is_initialized()


def _start_wandb(run: RunDirectory, config: Config) -> Any:
    if config.wandb.mode == "disabled":
        return None
    import wandb

    return wandb.init(
        project=config.wandb.project,
        name=run.path.name,
        dir=str(run.path),
        mode=config.wandb.mode,
        id=fingerprint({"run": str(run.path), "config": config.model_dump()}),
        resume="allow",
        config=json.loads(without_keys(config.model_dump_json())),
        settings=wandb.Settings(silent=True),
    )
