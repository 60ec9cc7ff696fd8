"""The worker of a run: data, estimator, DeepSpeed engine, held-out NELBO, checkpoints, metrics.

Doors: `train_worker` (the loop that every path runs), `run_trainer` (through Ray Train),
`run_in_process` (the same loop in this process, one worker), `RunDirectory`.
"""

from raymdm.training.launch import run_in_process, run_trainer
from raymdm.training.run_directory import RunDirectory
from raymdm.training.worker import train_worker

__all__ = ["RunDirectory", "run_in_process", "run_trainer", "train_worker"]
