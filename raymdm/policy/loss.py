"""The clipped policy loss, one for MDPO and its baselines: they differ in the rows alone.

    l = 1/M · sum over counted i of w_i · [ -scale · min(ρ_i A, clip(ρ_i, 1 ± ε) A)
                                            + β · ½ (log p_reference - log p)² ]

with ρ the true ratio of a token's probability to the one it was drawn with (MDPO, arXiv 2508.13148;
its published code has ρ = 1 throughout). The loss of a batch is the sum over its rows divided by
the rows of the whole optimiser step, so that neither workers nor accumulation change it.

**What its gradient is.** A step draws a token at every masked position, and what it leaves standing
is a function of all of them (a token's confidence decides whether it stays). So the action of a
step is its whole prediction. With ρ = 1, β = 0, all masked positions, the sum in place of the mean
and the final reward as every step's advantage, the expected gradient of the loss is exactly minus
the gradient of the expected reward of final responses, in any order of revealing and with
remasking. Over the `revealed` positions it is that only where the order does not depend on the
tokens drawn (`random`, `shared_order`, `entropy`); ordered by confidence it is biased.

MDPO departs from that. The mean over M gives a step 1/M of its share. Rewards of predictions make
each step's own expected reward grow given what it reads, its effect on what later steps read left
out: under the advantage `single` it is the gradient of the sum over steps of E[R(x0_s)] with the
law of their inputs held fixed, and there the positions after the EOS of x0_s, which no reward has
read, add nothing. All this is exact, and the tests hold it by enumerating all outcomes. What is
left are later rewards, which do depend on those positions, and the mean and deviation of the group,
which contain the rollout's own reward.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from raymdm.policy.rows import PolicyRows

FURTHEST = 20.0
"""Log-ratios are cut here, without a gradient beyond: e^20 is 5e8, and e^89 is no float32."""


@dataclass(frozen=True)
class PolicyLoss:
    """Of R rows.

    Attributes:
        per_row: [R], differentiable; to be summed and divided by the rows of the step.
        sums: figures over the counted positions, without gradients, to be added up over batches and
            workers: `positions`, `clipped` (those the clipping left without a gradient), `ratio`,
            `ratio_squared`, and `kl` (0 without a reference).
    """

    per_row: Tensor
    sums: dict[str, Tensor]


def policy_loss(
    log_probabilities: Tensor,
    rows: PolicyRows,
    *,
    epsilon: float,
    beta: float,
    reference: Tensor | None = None,
) -> PolicyLoss:
    """The loss of every row, as the module says. A row in which nothing counts has 0.

    Args:
        log_probabilities: [R, L] under the policy, from `score`.
        rows: with their behaviour.
        epsilon: how far a ratio may go.
        beta: weight of the KL term.
        reference: [R, L] under the reference model, without a gradient; None where beta is 0.

    Raises:
        ValueError: no behaviour, or a beta without a reference.
    """
    if rows.behaviour is None:
        raise ValueError("the rows have no behaviour to take ratios to: see with_behaviour")
    if beta and reference is None:
        raise ValueError(f"beta {beta} needs the reference's log-probabilities")
    counted = rows.counted
    new = log_probabilities.where(counted, 0.0)
    ratio = (
        (new - rows.behaviour.to(new.dtype)).where(counted, 0.0).clamp(-FURTHEST, FURTHEST).exp()
    )
    advantages = rows.advantages.to(new.dtype)[:, None]
    limited = ratio.clamp(1 - epsilon, 1 + epsilon)
    gain = torch.minimum(ratio * advantages, limited * advantages)
    loss = -rows.scale.to(new.dtype)[:, None] * gain
    kl = torch.zeros_like(new)
    if reference is not None:
        kl = (reference.to(new.dtype).where(counted, 0.0) - new).square() / 2
        loss = loss + beta * kl
    weighted = (rows.weights.to(new.dtype) * loss).where(counted, 0.0)
    per_row = weighted.sum(-1) / counted.sum(-1).clamp(min=1)
    with torch.no_grad():
        # Above 1 + epsilon a gain is cut, below 1 - epsilon a loss.
        clipped = counted & (ratio * advantages > limited * advantages)
        sums = {
            "positions": counted.sum(),
            "clipped": clipped.sum(),
            "ratio": ratio.where(counted, 0.0).sum(),
            "ratio_squared": ratio.where(counted, 0.0).square().sum(),
            "kl": kl.sum(),
        }
    return PolicyLoss(per_row, sums)
