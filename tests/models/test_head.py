"""The head in chunks against the head as a whole."""

import pytest
import torch
from torch import Tensor

from raymdm.models import head as head_module
from raymdm.models.head import Head

POSITIONS, WIDTH, TOKENS = 37, 8, 50
PRECISE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 3e-2}


def made(dtype: torch.dtype, chunk: int | None, positions: int = POSITIONS) -> tuple[Head, Tensor]:
    """A head and hidden states, the same for every chunk."""
    generator = torch.Generator().manual_seed(0)
    head = Head(WIDTH, TOKENS, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.randn(TOKENS, WIDTH, generator=generator))
    head.to(dtype).chunk = chunk
    hidden = torch.randn(positions, WIDTH, generator=generator).to(dtype)
    return head, hidden.requires_grad_()


def results(dtype: torch.dtype, chunk: int | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Losses, and both gradients where every position counts with a factor of its own."""
    head, hidden = made(dtype, chunk)
    # Each end of the vocabulary is a target, so is one token of every chunk.
    targets = torch.arange(POSITIONS) * (TOKENS - 1) // (POSITIONS - 1)
    losses = head(hidden, targets)
    factors = torch.linspace(-1.0, 2.0, POSITIONS).to(losses.dtype)
    (losses * factors).sum().backward()
    return losses.detach(), hidden.grad, head.weight.grad


@pytest.mark.parametrize("dtype", list(PRECISE), ids=str)
@pytest.mark.parametrize("chunk", [1, 7, 16, 36])
def test_chunks_change_neither_losses_nor_gradients(dtype: torch.dtype, chunk: int) -> None:
    """Some chunks divide neither the positions nor the vocabulary."""
    for ours, wanted in zip(results(dtype, chunk), results(dtype, None), strict=True):
        assert ours is not None
        assert wanted is not None
        assert ours.dtype == wanted.dtype
        error = (ours - wanted).double().norm() / wanted.double().norm()
        assert 0 <= error < PRECISE[dtype]


def test_a_chunk_beyond_the_positions_is_the_plain_head() -> None:
    for ours, wanted in zip(
        results(torch.float32, 1000), results(torch.float32, None), strict=True
    ):
        assert ours is not None
        assert torch.equal(ours, wanted)


@pytest.mark.parametrize("chunk", [None, 1])
def test_no_position_gives_no_loss_and_no_gradient(chunk: int | None) -> None:
    head, hidden = made(torch.float32, chunk, positions=0)
    losses = head(hidden, torch.empty(0, dtype=torch.int64))
    assert losses.shape == (0,)
    losses.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.shape == (0, WIDTH)
    assert head.weight.grad is None or not head.weight.grad.any()


@pytest.mark.parametrize("frozen", ["weight", "hidden"])
def test_what_is_frozen_gets_no_gradient_and_costs_no_product(
    monkeypatch: pytest.MonkeyPatch, frozen: str
) -> None:
    """LoRA trains below a frozen head; the other case is a head on top of frozen layers."""
    made_empty: list[tuple[int, ...]] = []
    empty_like, zeros_like = torch.empty_like, torch.zeros_like
    head, hidden = made(torch.float32, 7)
    (head.weight if frozen == "weight" else hidden).requires_grad_(False)
    losses = head(hidden, torch.zeros(POSITIONS, dtype=torch.int64))

    def watched(make):  # type: ignore[no-untyped-def]
        return lambda like, **kind: made_empty.append(tuple(like.shape)) or make(like, **kind)

    monkeypatch.setattr(head_module.torch, "empty_like", watched(empty_like))
    monkeypatch.setattr(head_module.torch, "zeros_like", watched(zeros_like))
    losses.sum().backward()
    trained = (POSITIONS, WIDTH) if frozen == "weight" else (TOKENS, WIDTH)
    assert made_empty == [trained]
    assert (head.weight.grad is None) == (frozen == "weight")
    assert (hidden.grad is None) == (frozen == "hidden")


def test_logits_far_from_zero_do_not_overflow() -> None:
    head, hidden = made(torch.float32, 7)
    with torch.no_grad():
        hidden *= 1e3
    targets = torch.zeros(POSITIONS, dtype=torch.int64)
    losses = head(hidden, targets)
    head.chunk = None
    torch.testing.assert_close(losses, head(hidden, targets))


def test_a_logit_that_is_not_finite_is_not_hidden() -> None:
    """A run that diverges is known by its loss."""
    head, hidden = made(torch.float32, 7)
    with torch.no_grad():
        hidden[3, 0] = torch.nan
    losses = head(hidden, torch.zeros(POSITIONS, dtype=torch.int64))
    assert torch.isnan(losses).nonzero().flatten().tolist() == [3]


def test_no_more_logits_are_held_than_the_chunk_has(monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    logits = head_module._Chunks.logits

    def watched(self: head_module._Chunks, tokens: slice) -> Tensor:
        part = logits(self, tokens)
        widths.append(part.shape[1])
        assert part.numel() <= 7 * TOKENS
        return part

    monkeypatch.setattr(head_module._Chunks, "logits", watched)
    results(torch.float32, 7)
    assert sum(widths) == 2 * TOKENS  # once in each direction
