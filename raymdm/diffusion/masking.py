"""Maskers: from addressed noise and mask probabilities to the masked positions of each view."""

from dataclasses import dataclass
from typing import Protocol

import torch


class Masker(Protocol):
    """Views of one row: several masks with the same t, whose losses are averaged."""

    @property
    def views(self) -> int:
        """Masks (and forwards) per row."""

    @property
    def replicas(self) -> int:
        """Independent noise planes that the views are made of."""

    def masks(self, noise: torch.Tensor, mask_probability: torch.Tensor) -> torch.Tensor:
        """bool[views, B, L] from noise[replicas, B, L] in [0,1) and mask_probability[B]; every
        view masks every position with its mask_probability.
        """


@dataclass(frozen=True)
class IndependentMasker:
    """Each view has its own noise: one view is Standard, K views are MultiSample-K."""

    views: int = 1

    @property
    def replicas(self) -> int:
        """As many as views."""
        return self.views

    def masks(self, noise: torch.Tensor, mask_probability: torch.Tensor) -> torch.Tensor:
        """bool[views, B, L]: U < alpha."""
        return noise < mask_probability[:, None]


@dataclass(frozen=True)
class MirrorMasker:
    """Two views of one noise: U < alpha and U > 1 - alpha (MIRROR, paper section 4.2).

    The views are complementary where alpha <= 1/2 and overlap above. Drawing U twice would be
    MultiSample-2.
    """

    views: int = 2
    replicas: int = 1

    def masks(self, noise: torch.Tensor, mask_probability: torch.Tensor) -> torch.Tensor:
        """bool[2, B, L]."""
        alpha = mask_probability[:, None]
        return torch.stack([noise[0] < alpha, noise[0] > 1 - alpha])
