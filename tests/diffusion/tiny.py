"""A backbone and rows small enough that every mask can be listed, and exact values over them."""

from itertools import permutations, product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from raymdm.diffusion import Estimator, Rows
from raymdm.diffusion.density import TimeDensity
from raymdm.diffusion.epr import fit_epr
from raymdm.diffusion.law import CountLaw, RateLaw
from raymdm.diffusion.masking import ComplementMasker, RotationMasker
from raymdm.models import Backbone, ModelShape, build_model

MASK = 10
PROMPT, RESPONSE = (3, 7), (1, 4, 2, 8)
FIXTURES = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures"


def tiny_model(dtype: torch.dtype = torch.float64, *, causal: bool = False) -> Backbone:
    shape = ModelShape(
        vocabulary_size=12,
        hidden_size=8,
        layers=2,
        heads=2,
        key_value_heads=2,
        intermediate_size=16,
        mask_token_id=MASK,
        eos_token_id=8,
        pad_token_id=9,
        **({"causal": True} if causal else {}),
    )
    return build_model(shape, seed=3, initializer_std=0.6).to(dtype)


def certain_model() -> Backbone:
    """Predicts every token equally: each cross-entropy is log(12), whatever is masked."""
    model = tiny_model()
    torch.nn.init.zeros_(model.head.weight)
    return model


def make_rows(
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]],
    samples: list[int] | None = None,
    width: int = 0,
) -> Rows:
    """Rows of (prompt, response) pairs, padded on the right to the longest or to `width`."""
    width = max(width, *(len(prompt) + len(response) for prompt, response in pairs))
    ids = torch.full((len(pairs), width), 9)
    real = torch.zeros(len(pairs), width, dtype=torch.bool)
    eligible = torch.zeros_like(real)
    for row, (prompt, response) in enumerate(pairs):
        tokens = prompt + response
        ids[row, : len(tokens)] = torch.tensor(tokens)
        real[row, : len(tokens)] = True
        eligible[row, len(prompt) : len(tokens)] = True
    return Rows(ids, real, eligible, samples or list(range(len(pairs))))


def repeated(row: Rows, times: int) -> Rows:
    """The first row of `row`, as often as asked for, under the sample numbers 0, 1, 2, …"""
    return Rows(
        row.input_ids[:1].repeat(times, 1),
        row.attention_mask[:1].repeat(times, 1),
        row.eligible[:1].repeat(times, 1),
        list(range(times)),
        None if row.delimiters is None else row.delimiters[:1].repeat(times, 1),
        None if row.syntax is None else row.syntax[:1].repeat(times, 1),
    )


def all_masks(row: Rows) -> Tensor:
    """bool[2^n, L]: every subset of the response of a single row."""
    positions = row.eligible[0].nonzero()[:, 0]
    masks = torch.zeros(2 ** len(positions), row.input_ids.shape[1], dtype=torch.bool)
    masks[:, positions] = torch.tensor(list(product([False, True], repeat=len(positions))))
    return masks


def cross_entropy_sums(model: Backbone, row: Rows) -> Tensor:
    """The summed cross-entropy under every mask of `all_masks`, from full logits, one by one."""
    sums = []
    for mask in all_masks(row):
        ids = torch.where(mask, MASK, row.input_ids[0])
        log_p = model(ids[None], row.attention_mask)[0].log_softmax(-1)
        sums.append(-(log_p.gather(-1, row.input_ids[0][:, None])[:, 0] * mask).sum())
    return torch.stack(sums)


def mask_law(row: Rows, alpha: float) -> Tensor:
    """Probability of every mask of `all_masks` when each position is masked with alpha."""
    count, n = all_masks(row).sum(-1).double(), row.eligible.sum()
    return alpha**count * (1 - alpha) ** (n - count)


def loss_at(sums: Tensor, row: Rows, alpha: float) -> Tensor:
    """g(alpha): the exact mean over masks of the row's loss, from `cross_entropy_sums`."""
    return (mask_law(row, alpha) * sums).sum() / (alpha * row.eligible.sum().double())


def target(model: Backbone, row: Rows, epsilon: float = 1e-3) -> Tensor:
    """E_eps, the integral of g(alpha(t)) over t: a polynomial, so the quadrature is exact."""
    sums = cross_entropy_sums(model, row)
    nodes, weights = gauss(0.0, 1.0, 8)
    return sum(
        weight * loss_at(sums, row, (1 - epsilon) * t + epsilon)
        for t, weight in zip(nodes, weights, strict=True)
    )


def gauss(low: float, high: float, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on an interval."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    return low + (high - low) * (nodes + 1) / 2, weights * (high - low) / 2


def expected_loss(model: Backbone, estimator: Estimator, row: Rows, t: float) -> Tensor:
    """The exact mean of `estimator.row_losses` over its noise at a rate t, of a single row."""
    positions = estimator.eligible(row)[0].nonzero()[:, 0]
    cells, probability = noise_cells(estimator, len(positions), t)
    shape = (estimator.law.replicas, len(cells), row.input_ids.shape[1])
    noise = torch.full(shape, 0.5, dtype=torch.float64)
    noise[:, :, positions] = cells.transpose(0, 1)
    rows = repeated(row, len(cells))
    losses = estimator.row_losses(model, MASK, rows, np.full(len(cells), t), noise)
    return (probability * losses).sum()


def noise_cells(estimator: Estimator, n: int, t: float) -> tuple[Tensor, Tensor]:
    """Noise [C, R, n] that stands for all noise at a rate t, and its probability [C].

    Rates: masks can change only where U crosses a threshold, so each U takes one value inside every
    interval between thresholds: the joint law of all views. Counts: only the order of the U counts.
    """
    law = estimator.law
    if isinstance(law, CountLaw):
        orders = list(product(permutations(range(n)), repeat=law.replicas))
        values = (torch.tensor(orders, dtype=torch.float64) + 0.5) / n
        return values, torch.full((len(orders),), 1 / len(orders), dtype=torch.float64)
    if not isinstance(law, RateLaw):  # it reads no noise
        return torch.full((1, 1, n), 0.5, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    edges, views = [0.0, 1.0], law.masker.views
    rotated = isinstance(law.masker, RotationMasker)
    for rate in {t, 1 - t} if isinstance(law.masker, ComplementMasker) else {t}:
        alpha = float(law.mask_probability(np.array(rate)))
        raised = {"same": [], "raised": [min(alpha + law.delta, 1.0)]}.get(
            law.delimiter_rates, [alpha + law.delta * (1 - alpha)]
        )
        for q in [alpha, *raised]:
            reflected = [] if rotated or views == 1 else [1 - q]
            shifted = [((q - k / views) % 1.0, k / views) for k in range(views if rotated else 0)]
            edges += [q, *reflected, *(edge for pair in shifted for edge in pair)]
    found = np.unique(np.clip(edges, 0.0, 1.0))
    middles, lengths = (found[1:] + found[:-1]) / 2, np.diff(found)
    if law.replicas > 1:
        alpha = float(law.mask_probability(np.array(t)))
        middles, lengths = np.array([alpha / 2, (1 + alpha) / 2]), np.array([alpha, 1 - alpha])
    cells = np.array(list(product(range(len(middles)), repeat=law.replicas * n)))
    probability = torch.from_numpy(lengths[cells].prod(-1))
    return torch.from_numpy(middles[cells]).view(len(cells), law.replicas, n), probability


def fitted_density(cells: int = 6, mixing: float = 0.05) -> TimeDensity:
    """An EPR density in few cells, far from uniform, so that all of it can be integrated."""
    t = (np.arange(32) + 0.5) / 32
    fit = fit_epr(t, 0.3 + 2 / np.sqrt(t + 0.02) + 3 * t**4, starts=2)
    return TimeDensity(fit.curve((np.arange(cells) + 0.5) / cells)).mixed(mixing)
