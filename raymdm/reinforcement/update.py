"""From a round's rows to changed weights: forwards and backwards in micro-batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from raymdm.config.decoding import DecodingSection
from raymdm.config.policy import PolicySection
from raymdm.models import ModelShape
from raymdm.policy.loss import policy_loss
from raymdm.policy.rows import PolicyRows
from raymdm.policy.scoring import score
from raymdm.reinforcement.reference import Reference
from raymdm.training.engine import global_sum, step_engine

SUMS = ("positions", "clipped", "ratio", "ratio_squared", "kl")


@dataclass(frozen=True)
class Updated:
    """What the updates of a round were, over all workers.

    Attributes:
        loss: mean over rows, the last update's.
        norm: of the gradient before clipping, the last update's; NaN where there was none.
        updates: of the weights; none where no group had anything to say.
        rows: that each of them was made from.
        tokens: that went forward and backward, views and guidance included.
        forwards: rows of one view that went forward, those of the reference included.
        backwards: of them, those that went backward too.
        means: over all positions of all updates: clipped, ratio, ratio_squared, kl.
    """

    loss: float
    norm: float
    updates: int
    rows: int
    tokens: int
    forwards: int
    backwards: int
    means: dict[str, float]


@dataclass(frozen=True)
class Updater:
    """Updates an engine; every rank must call it together, whatever rows it has.

    Attributes:
        engine: DeepSpeed's, made for no accumulation of its own.
        section: of the policy.
        settings: of the rollouts, whose distribution is scored.
        shape: of the model.
        reference: of the KL term; None where `beta` is 0.
        micro_batch: most rows in a forward; None: all that a worker has.
        device: of this worker.
    """

    engine: Any
    section: PolicySection
    settings: DecodingSection
    shape: ModelShape
    reference: Reference | None
    micro_batch: int | None
    device: torch.device

    def __call__(self, passes: Sequence[PolicyRows]) -> Updated:
        """One update for each of the passes over the round's rollouts.

        Args:
            passes: this rank's rows of every update; as many passes on every rank. Rows without a
                behaviour have the weights of before the first update for it.
        """
        workers = torch.distributed.get_world_size()
        views = len(passes[0].shown) * (2 if self.settings.guidance else 1)
        own = (len(passes[0]), views * len(passes[0]), views * int(passes[0].attention.sum()))
        rows, trained, tokens = map(int, global_sum(*own, device=self.device))
        if not rows:
            return Updated(0.0, float("nan"), 0, 0, 0, 0, 0, dict.fromkeys(SUMS[1:], 0.0))
        kept: list[list[tuple[PolicyRows, Tensor | None]]] = []
        for number, each in enumerate(passes):
            again = number and self._is_given
            kept.append(kept[0] if again else self._fixed(self._parts(each), first=not number))
        backwards = len(passes) * trained
        fixed = 1 if self._is_given else len(passes)
        forwards = backwards + (fixed * trained if self.reference is not None else 0)
        forwards += (fixed - 1) * trained
        sums = dict.fromkeys(SUMS, 0.0)
        loss = norm = float("nan")
        for given in kept:
            loss = 0.0
            for number, (part, reference) in enumerate(given, start=1):
                self.engine.set_gradient_accumulation_boundary(number == len(given))
                found = score(self.engine, part, self.settings, self.shape)
                counted = part if part.behaviour is not None else part.with_behaviour(found)
                value = policy_loss(
                    found,
                    counted,
                    epsilon=self.section.epsilon,
                    beta=self.section.beta,
                    reference=reference,
                )
                # DeepSpeed averages over the workers.
                self.engine.backward(value.per_row.sum() * (workers / rows))
                loss += float(value.per_row.detach().double().sum())
                for name in SUMS:
                    sums[name] += float(value.sums[name])
            (loss,) = global_sum(loss / rows, device=self.device)
            if loss != loss or loss in (float("inf"), -float("inf")):
                break
            norm = step_engine(self.engine)
        totals = dict(zip(SUMS, global_sum(*sums.values(), device=self.device), strict=True))
        count = max(totals.pop("positions"), 1)
        means = {name: value / count for name, value in totals.items()}
        tokens *= len(passes)
        return Updated(loss, norm, len(passes), rows, tokens, forwards, backwards, means)

    @property
    def _is_given(self) -> bool:
        """Whether rows have the rollouts' own probabilities. Not asked of the rows: all ranks must
        do the same, whatever rows they have.
        """
        return self.section.loss == "mdpo"

    def _parts(self, rows: PolicyRows) -> list[PolicyRows]:
        """Rows in forwards, of like length together; as many forwards as any rank needs."""
        size = self.micro_batch or max(len(rows), 1)
        lengths = rows.attention.sum(-1)
        order = lengths.argsort(stable=True).tolist()
        chosen = [order[start : start + size] for start in range(0, len(order), size)]
        most = torch.tensor(len(chosen), device=self.device)
        torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
        parts = [rows.take(part).to(self.device) for part in chosen]
        return parts + [_nothing(self.shape).to(self.device)] * (int(most) - len(parts))

    @torch.no_grad()
    def _fixed(
        self, parts: Sequence[PolicyRows], *, first: bool
    ) -> list[tuple[PolicyRows, Tensor | None]]:
        """Parts with what the weights of before the updates, and the reference, say of them."""
        fixed = []
        for part in parts:
            reference = None
            if self.reference is not None:
                reference = self.reference.scores(self.engine, part, self.settings)
            if not self._is_given and not first:
                found = score(self.engine, part, self.settings, self.shape)
                part = part if part.behaviour is not None else part.with_behaviour(found)
            fixed.append((part, reference))
        return fixed


def _nothing(shape: ModelShape) -> PolicyRows:
    """A row in which nothing counts, for a worker that has fewer forwards to do than others."""
    mask = torch.full((1, 2), shape.mask_token_id)
    none = torch.zeros(1, 2)
    every = torch.ones(1, 2, dtype=torch.bool)
    return PolicyRows(
        shown=mask[None],
        coefficients=none[None],
        attention=every,
        response=every,
        targets=mask,
        counted=~every,
        weights=none,
        scale=torch.ones(1),
        advantages=torch.zeros(1),
        behaviour=none,
    )
