"""Tokens drawn from logits follow the exact probabilities; their noise has an address."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from raymdm.config.decoding import DecodingSection
from raymdm.decoding.noise import gumbel, uniforms
from raymdm.decoding.sampling import draw, inverse_cdf, lowest_drawn

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -torch.inf, 0.5, -3.0])
DRAWS = 40_000


def counts(settings: DecodingSection) -> np.ndarray:
    uniform = torch.from_numpy(uniforms(3, [0], [0], [0], [DRAWS])[0, 0])
    tokens = draw(LOGITS.expand(DRAWS, -1), settings, uniform)
    return np.bincount(tokens.numpy(), minlength=len(LOGITS))


def fits(found: np.ndarray, probability: Tensor) -> bool:
    """By the chi-squared test at 1e-3, and nothing where there is no probability."""
    own = probability.numpy() > 0
    expected = probability.double().numpy()[own]
    if own.sum() == 1 or found[~own].any():
        return not found[~own].any()
    return bool(stats.chisquare(found[own], DRAWS * expected / expected.sum()).pvalue > 1e-3)


@pytest.mark.parametrize("sampling", ["gumbel", "categorical"])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.0])
def test_frequencies_are_the_softmax_at_the_temperature(sampling: Any, temperature: float):
    found = counts(DecodingSection(sampling=sampling, temperature=temperature))
    assert fits(found, (LOGITS / temperature).softmax(-1))
    assert not fits(found, (LOGITS / (temperature * 1.05)).softmax(-1))


@pytest.mark.parametrize("sampling", ["gumbel", "categorical"])
@pytest.mark.parametrize(
    ("keys", "kept"),
    [  # at temperature 2 the probabilities fall from 0.31: 0.31 0.19 0.15 0.11 0.07 0.03
        ({"top_k": 2}, [0, 1]),
        ({"top_p": 0.6}, [0, 1, 5]),
        ({"top_p": 0.9, "top_k": 3}, [0, 1, 5]),
        ({"top_p": 0.1}, [0]),
        ({"top_k": 99, "top_p": 1.0}, [0, 1, 2, 3, 5, 6]),
    ],
)
def test_only_the_most_probable_are_drawn_by_their_shares(
    sampling: Any, keys: dict[str, Any], kept: list[int]
):
    found = counts(DecodingSection(sampling=sampling, temperature=2.0, **keys))
    wanted = torch.zeros_like(LOGITS)
    wanted[kept] = (LOGITS / 2)[kept].exp()
    assert fits(found, wanted)


def test_equal_logits_are_kept_alike():
    logits = torch.tensor([[1.0, 3.0, 3.0, 3.0, 0.0]])
    assert lowest_drawn(logits, None, 2).tolist() == [3.0]
    assert lowest_drawn(logits, 0.5, None).tolist() == [3.0]


def test_without_temperature_the_most_probable_is_taken_whatever_else_is_set():
    settings = DecodingSection(top_p=0.1, top_k=1)
    assert draw(LOGITS[None], settings, None).tolist() == [0]


def test_the_inverse_of_the_cumulative_distribution_is_exact():
    weights = torch.tensor([[0.0, 1.0, 0.0, 2.0, 0.0, 5.0, 0.0]])
    uniform = torch.tensor([0.0, 0.1249, 0.125, 0.3749, 0.375, 0.99999, 1 - 2.0**-53]).double()
    found = inverse_cdf(weights.expand(len(uniform), -1), uniform)
    assert found.tolist() == [1, 1, 3, 3, 5, 5, 5]


@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 16, 17, 126_464])
def test_the_inverse_reaches_every_token_of_any_vocabulary(tokens: int):
    weights = torch.ones(1, tokens)
    shares = (torch.tensor([0, tokens // 3, tokens - 1]) + 0.5) / tokens
    found = inverse_cdf(weights.expand(3, -1), shares.double())
    assert found.tolist() == [0, tokens // 3, tokens - 1]


def test_gumbel_noise_has_the_gumbel_distribution_also_far_out():
    noise = gumbel(torch.linspace(0, 1 - 2.0**-53, 300).double(), 4001)
    assert noise.dtype == torch.float32
    values = noise.flatten().double().numpy()
    assert stats.kstest(values, "gumbel_r").pvalue > 1e-3
    assert np.isfinite(values).all()
    # 1.2 million draws: the greatest is near ln of their number.
    assert 11 < values.max() < 25
    # Neither tokens of one position nor positions of one token go together.
    assert abs(np.corrcoef(noise[:-1].flatten(), noise[1:].flatten())[0, 1]) < 5e-3
    assert abs(np.corrcoef(noise[:, :-1].flatten(), noise[:, 1:].flatten())[0, 1]) < 5e-3


def test_a_positions_noise_depends_on_its_own_address_only():
    one = uniforms(7, [5], [2], [4], [6])
    many = uniforms(7, [1, 5, 9], [2, 2, 2], [0, 4, 4], [3, 6, 9])
    assert (many[:, 1, :6] == one[:, 0]).all()
    assert (many[:, 1, 6:] == 0).all()
    for other in (
        uniforms(8, [5], [2], [4], [6]),
        uniforms(7, [6], [2], [4], [6]),
        uniforms(7, [5], [3], [4], [6]),
        uniforms(7, [5], [2], [5], [6]),
    ):
        assert not (other == one).any()
    assert len(np.unique(one)) == one.size  # a token's number is not that of its place in an order


def test_responses_to_a_prompt_may_share_the_order_of_the_first_one():
    one = uniforms(7, [5, 5, 6], [0, 2, 2], [4, 4, 4], [6, 6, 6])
    shared = uniforms(7, [5, 5, 6], [0, 2, 2], [4, 4, 4], [6, 6, 6], shared_order=True)
    assert (shared[0] == one[0]).all()  # each token's number is its own
    assert (shared[1, 0] == one[1, 0]).all()
    assert (shared[1, 1] == one[1, 0]).all()
    assert (shared[1, 2] != one[1, 0]).all()


def test_the_noise_stays_what_it_is():
    """Literal values: other noise changes every response at a temperature."""
    noise = uniforms(0, [1], [2], [3], [2])
    assert noise[:, 0].tolist() == [
        [0.5431732740536501, 0.44980680543485163],
        [0.2829482195664563, 0.5937426460428167],
    ]
    found = gumbel(torch.tensor([0.25, 0.75]).double(), 3)
    torch.testing.assert_close(
        found,
        torch.tensor(
            [
                [1.8933120965957642, 0.3157843351364136, 1.242187261581421],
                [-0.0628507137298584, 1.4147001504898071, 3.2120494842529297],
            ]
        ),
    )
