"""Laws: what a row shows to the model and which cross-entropies count, given its t and noise.

A law turns rates and noise into views. The loss of a view is the sum of its coefficients times its
cross-entropies, over n where rows are normalised one by one (`normalize: sample`).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from raymdm.diffusion.masking import Masker
from raymdm.diffusion.time import TimeSampler


class Views(NamedTuple):
    """K views of B rows.

    Attributes:
        hidden: bool[K, B, L], positions shown as the mask token.
        predicted: bool[K, B, L], positions whose cross-entropy counts.
        coefficients: float64[K, B, L], what it is multiplied with (read where `predicted`).
    """

    hidden: Tensor
    predicted: Tensor
    coefficients: Tensor


class Law(Protocol):
    """The distribution of masks given t, with the coefficients that make it unbiased."""

    @property
    def views(self) -> int:
        """K, masks (and forwards) per row."""

    @property
    def replicas(self) -> int:
        """R, noise planes per row."""

    def draw(
        self, t: np.ndarray, noise: Tensor, eligible: Tensor, delimiters: Tensor | None
    ) -> Views:
        """Views from t[B], noise[R, B, L], eligible[B, L] and delimiters[B, L]."""

    def weight(self, time: TimeSampler, t: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Importance weights[B] of rows with t[B] and n = lengths[B], t drawn by `time`."""


@dataclass(frozen=True)
class RateLaw:
    """Every eligible token masked on its own with probability alpha(t), its CE over alpha(t).

    Attributes:
        masker: how the views share their noise.
        epsilon: alpha(t) = (1 - epsilon) t + epsilon.
        delimiter_rates: `same`, or ISAD's higher rates of the delimiters (arXiv 2511.18159,
            appendix): `raised` to min(alpha + delta, 1), each CE over its own rate, so that the
            contexts are others than those of the loss (biased by 1-2%); `exact` to
            alpha + delta (1 - alpha), every CE times the likelihood ratio of the whole mask (ours,
            unbiased; second moment of the ratio at most 1/(1 - delta) per delimiter).
        delta: how far they are raised.
    """

    masker: Masker
    epsilon: float = 1e-3
    delimiter_rates: Literal["same", "raised", "exact"] = "same"
    delta: float = 0.2

    @property
    def views(self) -> int:
        """The masker's."""
        return self.masker.views

    @property
    def replicas(self) -> int:
        """The masker's."""
        return self.masker.replicas

    def mask_probability(self, t: np.ndarray) -> np.ndarray:
        """alpha(t) in [epsilon, 1]."""
        return (1.0 - self.epsilon) * t + self.epsilon

    def draw(
        self, t: np.ndarray, noise: Tensor, eligible: Tensor, delimiters: Tensor | None
    ) -> Views:
        """U < alpha, or what the masker makes of it."""
        rates = self.masker.rates(torch.from_numpy(t).to(eligible.device))
        alpha = ((1.0 - self.epsilon) * rates + self.epsilon)[:, :, None]
        noise = noise.to(eligible.device)
        if self.delimiter_rates == "same":
            probability = alpha.expand(-1, -1, noise.shape[-1])
            masks = self.masker.masks(noise, probability) & eligible
            return Views(masks, masks, 1.0 / probability)
        assert delimiters is not None
        raised = delimiters & eligible
        higher = (
            (alpha + self.delta).clamp(max=1.0)
            if self.delimiter_rates == "raised"
            else alpha + self.delta * (1.0 - alpha)
        )
        probability = torch.where(raised, higher, alpha)
        masks = self.masker.masks(noise, probability) & eligible
        if self.delimiter_rates == "raised":
            return Views(masks, masks, 1.0 / probability)
        ratio = torch.where(masks, alpha / higher, 1.0 / (1.0 - self.delta))
        whole = torch.where(raised, ratio, 1.0).prod(-1, keepdim=True)
        return Views(masks, masks, (whole / alpha).expand_as(masks))

    def weight(self, time: TimeSampler, t: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """1/f(t)."""
        return time.weight(t)


@dataclass(frozen=True)
class CountLaw:
    """Exactly k = 1 + floor(n t) tokens masked, a uniform subset, each CE times n/k.

    The law of LLaDA's likelihood estimate used for training (ours): no empty masks, no 1/alpha
    pole, target at epsilon = 0. With t from a density f, pi_k is f's mass on [(k-1)/n, k/n) and the
    weight 1/(n pi_k).
    """

    views: int = 1

    @property
    def replicas(self) -> int:
        """As many as views: each has its own subset."""
        return self.views

    def draw(
        self, t: np.ndarray, noise: Tensor, eligible: Tensor, delimiters: Tensor | None
    ) -> Views:
        """The k eligible positions with the least noise."""
        lengths = eligible.sum(-1)
        counts = self.counts(t, lengths.cpu().numpy())
        k = torch.from_numpy(counts).to(eligible.device)
        hidden_noise = noise.to(eligible.device).masked_fill(~eligible, torch.inf)
        rank = hidden_noise.argsort(dim=-1, stable=True).argsort(dim=-1)
        masks = (rank < k[:, None]) & eligible
        coefficients = (lengths.double() / k)[None, :, None].expand_as(masks)
        return Views(masks, masks, coefficients)

    def weight(self, time: TimeSampler, t: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """1/(n pi_k)."""
        k = self.counts(t, lengths)
        return 1.0 / (lengths * time.mass((k - 1) / lengths, k / lengths))

    @staticmethod
    def counts(t: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """k[B], int64, of rows with t[B] and n = lengths[B]."""
        return np.minimum(1 + np.floor(lengths * t), lengths).astype(np.int64)


@dataclass(frozen=True)
class AutoregressiveLaw:
    """Nothing is hidden and every response token is predicted (ARM, for a causal model)."""

    views: int = 1
    replicas: int = 1

    def draw(
        self, t: np.ndarray, noise: Tensor, eligible: Tensor, delimiters: Tensor | None
    ) -> Views:
        """The whole response."""
        predicted = eligible[None]
        ones = torch.ones_like(predicted, dtype=torch.float64)
        return Views(torch.zeros_like(predicted), predicted, ones)

    def weight(self, time: TimeSampler, t: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """1."""
        return np.ones_like(t)
