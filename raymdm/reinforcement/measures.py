"""What a round was: sums over the workers, as columns of `metrics.parquet`."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import torch

from raymdm.models import ModelShape
from raymdm.reinforcement.round_maker import Made
from raymdm.reinforcement.rounds import Chosen, Group
from raymdm.reinforcement.update import Updated
from raymdm.training.engine import global_sum


@dataclass(frozen=True)
class RoundFigures:
    """Of one round, over all workers.

    Attributes:
        columns: for the metrics.
        counts: forwards, backwards, rollouts and optimiser_steps of the round.
        flags: those that were to be summed with it.
    """

    columns: dict[str, Any]
    counts: dict[str, int]
    flags: list[float]


def round_figures(
    made: Made,
    chosen: Chosen,
    updated: Updated,
    training_seconds: float,
    shape: ModelShape,
    flags: tuple[bool, bool],
    device: torch.device,
    passes: int,
    names: Sequence[str],
) -> RoundFigures:
    """One global sum; every rank must call it.

    Args:
        made: the round on this worker.
        chosen: what was trained on.
        updated: what came of it, over all workers already.
        training_seconds: that it took.
        shape: of the model.
        flags: further numbers to be summed.
        device: of this worker.
        passes: forwards of a row at a step: 2 with guidance.
        names: of the rewards.
    """
    own = _sums(chosen, made, shape, names)
    by_step = torch.cat([group.rewards for group in chosen.groups]).sum(0)
    values = global_sum(*own.values(), *by_step.tolist(), *flags, device=device)
    total = dict(zip(own, values, strict=False))
    rewards = np.array(values[len(own) : len(own) + len(by_step)])
    rollouts = total["rollouts"]
    reward = total["reward"] / rollouts
    variance = total["reward_squared"] / rollouts - reward**2
    means = updated.means
    columns = {
        "loss": updated.loss,
        "gradient_norm": updated.norm,
        "reward": reward,
        "reward_deviation": sqrt(max(variance, 0.0)),
        **{
            f"reward_of_{name}": total[f"reward_of_{name}"] / max(total["judged"], 1)
            for name in names
        },
        "accuracy": total["correct"] / rollouts,
        "over_denoising_rate": total["over_denoised"] / rollouts,
        "reward_by_denoising_step": (rewards / rollouts).tolist(),
        "first_step_reward": rewards[0] / rollouts,
        "middle_step_reward": rewards[len(rewards) // 2] / rollouts,
        "kl": means["kl"],
        "ratio_mean": means["ratio"],
        "ratio_deviation": sqrt(max(means["ratio_squared"] - means["ratio"] ** 2, 0.0)),
        "clipped_share": means["clipped"],
        "skipped_groups": total["skipped"] / total["groups"],
        "trained_rows": updated.rows,
        "rollout_tokens_per_second": total["tokens"] / max(made.rollout_seconds, 1e-9),
        "tokens_per_second": updated.tokens / max(training_seconds, 1e-9),
        "rollout_seconds": made.rollout_seconds,
        "reward_seconds": made.reward_seconds,
        "training_seconds": training_seconds,
        "staleness": made.staleness,
        "actors_restarted": made.restarts,
        "prompts_listed": made.listed,
        "rewards_computed": total["checks"],
        "rewards_timed_out": total["timed_out"],
        "rewards_crashed": total["crashed"],
    }
    counts = {
        "forwards": updated.forwards + round(passes * total["steps"]),
        "backwards": updated.backwards,
        "rollouts": round(rollouts),
        "optimiser_steps": updated.updates,
    }
    return RoundFigures(columns, counts, values[len(own) + len(by_step) :])


def _sums(chosen: Chosen, made: Made, shape: ModelShape, names: Sequence[str]) -> dict[str, float]:
    """Of this worker."""
    groups, judged = chosen.groups, made.judged
    final = torch.cat([group.rewards[:, -1] for group in groups])
    sums = {
        "rollouts": float(len(final)),
        "groups": float(len(groups)),
        "skipped": float((~chosen.kept).sum()),
        "reward": float(final.sum()),
        "reward_squared": float(final.square().sum()),
        "over_denoised": float(sum(int(group.over_denoised.sum()) for group in groups)),
        "correct": float(sum(float(group.correct[:, -1].sum()) for group in groups)),
        "tokens": 0.0,
        "steps": float(sum(_steps(group, shape) for group in groups)),
        "checks": 0.0,
        "timed_out": 0.0,
        "crashed": 0.0,
        "judged": 0.0,
        **{f"reward_of_{name}": 0.0 for name in names},
    }
    if judged is not None:
        for name in ("checks", "timed_out", "crashed"):
            sums[name] = float(getattr(judged, name))
        # Of rollouts that are on disk nothing is told: they were made another time.
        sums["judged"] = float(sum(map(len, judged.rewards)))
        sums["tokens"] = sums["judged"] * len(groups[0].traces[0].start)
        sums |= {f"reward_of_{name}": judged.parts[name] for name in names}
    return sums


def _steps(group: Group, shape: ModelShape) -> int:
    """Steps at which something was masked: those that took a forward."""
    mask = shape.mask_token_id
    return sum(int((trace.inputs == mask).any(-1).sum()) for trace in group.traces)
