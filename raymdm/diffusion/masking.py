"""Maskers: from addressed noise and mask probabilities to the masked positions of each view."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Masker(Protocol):
    """Views of one row: several masks whose losses are averaged, one forward each."""

    @property
    def views(self) -> int:
        """K, masks (and forwards) per row."""

    @property
    def replicas(self) -> int:
        """R, independent noise planes that the views are made of."""

    def rates(self, t: Tensor) -> Tensor:
        """The rate of every view[K, B] from the rows' t[B]."""

    def masks(self, noise: Tensor, probability: Tensor) -> Tensor:
        """bool[K, B, L] from noise[R, B, L] in [0,1) and the probability[K, B, L] with which every
        view masks every position.
        """


@dataclass(frozen=True)
class IndependentMasker:
    """Each view has its own noise: one view is Standard, K views are MultiSample-K."""

    views: int = 1

    @property
    def replicas(self) -> int:
        """As many as views."""
        return self.views

    def rates(self, t: Tensor) -> Tensor:
        """All t."""
        return t.expand(self.views, -1)

    def masks(self, noise: Tensor, probability: Tensor) -> Tensor:
        """U < q."""
        return noise < probability


@dataclass(frozen=True)
class MirrorMasker:
    """Two views of one noise: U < q and U > 1 - q (MIRROR, paper section 4.2).

    The views are complementary where q <= 1/2 and overlap above. Drawing U twice would be
    MultiSample-2.
    """

    views: int = 2
    replicas: int = 1

    def rates(self, t: Tensor) -> Tensor:
        """Both t."""
        return t.expand(2, -1)

    def masks(self, noise: Tensor, probability: Tensor) -> Tensor:
        """U < q, and its reflection."""
        return torch.stack([noise[0] < probability[0], noise[0] > 1 - probability[1]])


@dataclass(frozen=True)
class RotationMasker:
    """K views of one noise, shifted around the unit circle: ((U + k/K) mod 1) < q.

    Two views have MIRROR's joint law; K views at q <= 1/K never overlap.
    """

    views: int
    replicas: int = 1

    def rates(self, t: Tensor) -> Tensor:
        """All t."""
        return t.expand(self.views, -1)

    def masks(self, noise: Tensor, probability: Tensor) -> Tensor:
        """The shifted noise < q."""
        shifts = torch.arange(self.views, dtype=noise.dtype, device=noise.device) / self.views
        return (noise[0] + shifts[:, None, None]) % 1.0 < probability


@dataclass(frozen=True)
class ComplementMasker:
    """Rate t with a mask, rate 1 - t with the complementary one, together every token about once.

    Each view masks with alpha of its own rate, so both estimate the same loss: the masks overlap by
    the epsilon of alpha. With t from a density f, 1 - t has the density f(1 - ·): the weight of
    both views is 1/f(t).
    """

    views: int = 2
    replicas: int = 1

    def rates(self, t: Tensor) -> Tensor:
        """Rates t and 1 - t."""
        return torch.stack([t, 1 - t])

    def masks(self, noise: Tensor, probability: Tensor) -> Tensor:
        """U < q(t), and U > 1 - q(1 - t)."""
        return torch.stack([noise[0] < probability[0], noise[0] > 1 - probability[1]])
