"""MDPO's rows: denoising steps of rollouts, read as they were and scored on what they predicted."""

from collections.abc import Sequence

import torch
from torch import Tensor

from raymdm.config.decoding import DecodingSection
from raymdm.config.policy import PolicySection
from raymdm.decoding import Trace
from raymdm.decoding.schedule import plan
from raymdm.models import ModelShape
from raymdm.policy.rows import PolicyRows, Rollout, aligned, behind, up_to_eos


def whole(trace: Trace, settings: DecodingSection) -> Trace:
    """The trace with all steps of its plan: one that ended at an EOS has steps in which nothing
    happens behind it, whose rewards are those of the final text and at which nothing is trained.
    """
    return trace.rested(len(plan(settings, len(trace.start))))


def trained_positions(trace: Trace, section: PolicySection, shape: ModelShape) -> Tensor:
    """At each step the positions that are trained on, bool[S, n].

    Args:
        trace: of one rollout.
        section: tokens (`revealed`: predictions that stand right after the step; what remasking
            took back at once is none) and after_eos, the EOS being that of the step's own
            prediction, whose text was rewarded.
        shape: names the mask and EOS tokens.
    """
    trained = trace.inputs == shape.mask_token_id
    if section.tokens == "revealed":
        trained &= trace.states == trace.predictions
    if not section.after_eos:
        trained &= up_to_eos(trace.predictions, shape.eos_token_id)
    return trained


def trainable_steps(traces: Sequence[Trace], section: PolicySection, shape: ModelShape) -> Tensor:
    """Steps at which there is something to train on, bool[G, S], of a group's G `whole` traces."""
    return torch.stack([trained_positions(trace, section, shape).any(-1) for trace in traces])


def rows_of_steps(
    rollouts: Sequence[Rollout],
    steps: Sequence[int],
    advantages: Sequence[float] | Tensor,
    section: PolicySection,
    shape: ModelShape,
) -> PolicyRows:
    """The rows of R chosen steps; their ratios are to the probabilities of the rollouts.

    Args:
        rollouts: R, one more than once where several of its steps were chosen; the traces with
            log-probabilities.
        steps: R, which step of each, from 0; one at which it is trainable.
        advantages: R.
        section: tokens, after_eos, confidence_weights and length_factor (the length and the masked
            positions being those up to the EOS, unless after_eos).
        shape: names the mask, EOS and padding tokens.

    Raises:
        ValueError: a trace without log-probabilities of positions that are trained on.
    """
    shown, targets, response, counted, weights, scale, behaviour = [], [], [], [], [], [], []
    for rollout, step in zip(rollouts, steps, strict=True):
        prompt, trace = rollout.prompt, rollout.trace.only(step)
        if trace.log_probability is None:
            raise ValueError("a trace without log-probabilities cannot be trained on")
        read, predicted = trace.start, trace.predictions[0]
        trained = trained_positions(trace, section, shape)[0]
        drawn = trace.log_probability[0].where(trained, 0.0)
        if drawn.isnan().any():
            raise ValueError("positions without a prediction of their own cannot be trained on")
        sure = trace.confidence[0] if section.confidence_weights else torch.ones_like(drawn)
        given = torch.as_tensor(prompt, dtype=torch.int64)
        shown.append(torch.cat([given, read]))
        targets.append(torch.cat([given, predicted]))
        response.append(behind(prompt, torch.ones_like(trained)))
        counted.append(behind(prompt, trained))
        weights.append(behind(prompt, sure.where(trained, 0.0)))
        behaviour.append(behind(prompt, drawn))
        scale.append(_length_factor(read, predicted, section, shape))
    aligned_counted = aligned(counted, False)
    return PolicyRows(
        shown=aligned(shown, shape.pad_token_id)[None],
        coefficients=aligned_counted[None].float(),
        attention=aligned([torch.ones_like(row, dtype=torch.bool) for row in shown], False),
        response=aligned(response, False),
        targets=aligned(targets, shape.pad_token_id),
        counted=aligned_counted,
        weights=aligned(weights, 0),
        scale=torch.tensor(scale),
        advantages=torch.as_tensor(advantages, dtype=torch.float32),
        behaviour=aligned(behaviour, 0),
    )


def _length_factor(
    read: Tensor, predicted: Tensor, section: PolicySection, shape: ModelShape
) -> float:
    """Length over masked positions, both up to the EOS that ends training; 1 if not wanted."""
    if not section.length_factor:
        return 1.0
    text = torch.ones_like(read, dtype=torch.bool)
    if not section.after_eos:
        text = up_to_eos(predicted, shape.eos_token_id)
    return float(text.sum() / (text & (read == shape.mask_token_id)).sum().clamp(min=1))
