"""Rows to be scored: what a model is to read, which of its predictions count, and how much."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from raymdm.decoding import Trace


@dataclass(frozen=True)
class Rollout:
    """One response to a prompt, and how it came about.

    Attributes:
        prompt: token ids.
        trace: of n response positions, on the CPU.
        number: of the prompt, as its decoding noise is addressed.
        rollout: which of the prompt's responses, likewise.
    """

    prompt: Sequence[int]
    trace: Trace
    number: int
    rollout: int


@dataclass(frozen=True)
class PolicyRows:
    """R rows of L columns, padded on the left as the sampler pads them, in V views each.

    A token's log-probability is the sum over the views of coefficient · log-probability, in each
    view given what that view shows. MDPO has one view, with coefficients 1.

    Attributes:
        shown: int64[V, R, L], what the model reads.
        coefficients: float32[V, R, L], not 0 where a view predicts the token for the loss.
        attention: bool[R, L], true at real tokens.
        response: bool[R, L], true at all response positions: what guidance shows alone.
        targets: int64[R, L], the tokens whose log-probability is wanted.
        counted: bool[R, L], the M positions of each row that the loss is a mean over.
        weights: float32[R, L] of the positions, 0 where not counted.
        scale: float32[R], a factor of the policy term.
        advantages: float32[R].
        behaviour: [R, L], log-probabilities when the tokens were drawn, or before the first update,
            0 where not counted; None until `with_behaviour`.
    """

    shown: Tensor
    coefficients: Tensor
    attention: Tensor
    response: Tensor
    targets: Tensor
    counted: Tensor
    weights: Tensor
    scale: Tensor
    advantages: Tensor
    behaviour: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def with_behaviour(self, log_probabilities: Tensor) -> "PolicyRows":
        """The same rows, whose ratios are to these log-probabilities [R, L]."""
        return replace(self, behaviour=log_probabilities.detach())

    def take(self, rows: Sequence[int]) -> "PolicyRows":
        """These rows in this order, without the padding that all of them have."""
        chosen = torch.as_tensor(rows, dtype=torch.int64, device=self.targets.device)
        attention = self.attention[chosen]
        longest = int(attention.sum(-1).max()) if len(chosen) else 0
        start = attention.shape[1] - longest
        return PolicyRows(
            shown=self.shown[:, chosen, start:],
            coefficients=self.coefficients[:, chosen, start:],
            attention=attention[:, start:],
            response=self.response[chosen, start:],
            targets=self.targets[chosen, start:],
            counted=self.counted[chosen, start:],
            weights=self.weights[chosen, start:],
            scale=self.scale[chosen],
            advantages=self.advantages[chosen],
            behaviour=None if self.behaviour is None else self.behaviour[chosen, start:],
        )

    def to(self, device: torch.device) -> "PolicyRows":
        """The same rows on another device."""
        moved = {name: None if x is None else x.to(device) for name, x in vars(self).items()}
        return PolicyRows(**moved)


def aligned(rows: Sequence[Tensor], fill: int) -> Tensor:
    """Tensors [length] of different lengths, padded on the left: [R, longest]."""
    longest = max(map(len, rows), default=0)
    padded = [torch.nn.functional.pad(row, (longest - len(row), 0), value=fill) for row in rows]
    return torch.stack(padded) if padded else torch.zeros(0, 0)


def behind(prompt: Sequence[int], response: Tensor) -> Tensor:
    """Values [n] of a response behind zeros for every token of its prompt: [length]."""
    return torch.nn.functional.pad(response, (len(prompt), 0))


def up_to_eos(tokens: Tensor, eos_token_id: int) -> Tensor:
    """Which positions stand before the first EOS or are it, bool[..., n]."""
    ended = (tokens == eos_token_id).long()
    return ended.cumsum(-1) - ended == 0
