"""What raymdm itself costs, as ratios and differences measured side by side in one run.

Doors: `measure_training` (our worker loop against a bare PyTorch loop), `measure_sweep` (seconds of
a trial that are not training steps), `measure_estimators` (variance of every estimator on trained
tiny models). The verb is `raymdm bench`.
"""

from raymdm.benchmarks.estimators import measure_estimators
from raymdm.benchmarks.sweep import SweepFigures, measure_sweep
from raymdm.benchmarks.training import TrainingFigures, measure_training

__all__ = [
    "SweepFigures",
    "TrainingFigures",
    "measure_estimators",
    "measure_sweep",
    "measure_training",
]
