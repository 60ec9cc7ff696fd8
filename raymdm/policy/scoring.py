"""The log-probabilities of rows under a model: the policy, its past self, or the reference."""

import torch
from torch import Tensor, nn

from raymdm.config.decoding import DecodingSection
from raymdm.decoding.prediction import log_probabilities
from raymdm.models import ModelShape
from raymdm.policy.rows import PolicyRows


def score(
    model: nn.Module, rows: PolicyRows, settings: DecodingSection, shape: ModelShape
) -> Tensor:
    """The log-probability of every counted token, [R, L] in at least float32, 0 elsewhere.

    Under the distribution that the sampler draws from with these settings: guided, at the
    temperature, without the mask token, and with top-p or top-k cut as the sampler cuts it. On what
    a rollout read, and with its weights, this is the rollout's own log-probability up to rounding.
    The support of a cut distribution moves with the weights: for a token that has left it since,
    the cut is lowered to it, so that ratios are positive and have gradients.

    Logits are computed at the predicted positions only. V forwards' worth of rows, twice as many
    with guidance; differentiable.

    Args:
        model: called as model(input_ids, attention_mask, select=bool[rows, L]) -> logits[M, V]; a
            `Backbone` or an engine around one.
        rows: on the model's device.
        settings: of the rollouts.
        shape: of the model.
    """
    views = len(rows.shown)
    ids, attention = rows.shown.flatten(0, 1), rows.attention.repeat(views, 1)
    predicted = (rows.coefficients != 0).flatten(0, 1)
    targets = rows.targets.repeat(views, 1)[predicted]
    select = predicted
    if settings.guidance:
        without = ids.masked_fill(~rows.response.repeat(views, 1), shape.mask_token_id)
        ids = torch.cat([ids, without])
        attention, select = attention.repeat(2, 1), predicted.repeat(2, 1)
    logits = model(ids, attention, select=select)
    found = log_probabilities(logits, targets, settings, shape)
    of_view = found.new_zeros(predicted.shape).masked_scatter(predicted, found)
    return (of_view.unflatten(0, (views, -1)) * rows.coefficients.to(found.dtype)).sum(0)
