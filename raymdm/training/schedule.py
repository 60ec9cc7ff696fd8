"""The learning rate as a function of the step."""

import math

from raymdm.config.training import TrainingSection


def learning_rate(training: TrainingSection, step: int, steps: int) -> float:
    """Rate of optimiser step `step` (from 0) of a run of `steps`.

    Linear warm-up from zero over `warmup_steps`, then the schedule's decay towards zero at `steps`.
    """
    peak, warmup = training.learning_rate, training.warmup_steps
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if training.schedule == "constant":
        return peak
    done = (step - warmup) / max(1, steps - warmup)
    if training.schedule == "linear":
        return peak * (1.0 - done)
    return peak * 0.5 * (1.0 + math.cos(math.pi * done))


def total_steps(training: TrainingSection, steps_per_epoch: int) -> int:
    """Optimiser steps of a run, from `steps` or `epochs`."""
    return training.steps or (training.epochs or 1) * steps_per_epoch
