"""Sums of cross-entropies are the same whether the model gives logits or the losses themselves."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from raymdm.diffusion.cross_entropy import cross_entropy_sums, masked_cross_entropy
from raymdm.models import Backbone, ModelShape, build_model

MASK = 22
IDS = torch.arange(12).view(2, 6)
REAL = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]).bool()
PREDICTED = torch.tensor([[0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]]).bool()


class OnlyLogits(nn.Module):
    """Somebody's own model, which knows nothing of targets."""

    def __init__(self, inner: Backbone) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: Tensor, attention_mask: Tensor, select: Tensor) -> Tensor:
        return self.inner(input_ids, attention_mask, select=select)


@pytest.fixture
def model() -> Backbone:
    return build_model(ModelShape(24, 16, 2, 4, 2, 32, MASK, 21, 23), 0, 0.5).double()


@pytest.mark.parametrize("chunk", [None, 2])
def test_losses_and_logits_agree(model: Backbone, chunk: int | None):
    coefficients = torch.rand(2, 6, dtype=torch.float64)
    arguments = (IDS.masked_fill(PREDICTED, MASK), REAL, IDS, PREDICTED, coefficients)
    model.head.chunk = chunk
    sums = cross_entropy_sums(model, *arguments)
    wanted = cross_entropy_sums(OnlyLogits(model), *arguments)
    torch.testing.assert_close(sums, wanted, rtol=1e-12, atol=0)
    assert sums[1] == 0
    gradients = [torch.autograd.grad(s.sum(), list(model.parameters())) for s in (sums, wanted)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_it_is_the_sum_over_the_hidden_tokens(model: Backbone):
    shown = IDS.masked_fill(PREDICTED, MASK)
    losses = functional.cross_entropy(model(shown, REAL).mT, IDS, reduction="none")
    wanted = (losses * PREDICTED).sum(-1)
    torch.testing.assert_close(masked_cross_entropy(model, IDS, REAL, PREDICTED, MASK), wanted)
