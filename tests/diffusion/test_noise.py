"""Randomness is addressed: a number depends on its address and on nothing else."""

import numpy as np
import pytest
import torch
from scipy import stats

from raymdm.diffusion.noise import mask_noise, time_noise, torch_generator
from raymdm.randomness import STREAMS, generator, permutation


def test_the_addressing_is_frozen():
    """A change of these numbers changes every run that was ever recorded."""
    time = [0.47515916035519756, 0.48792174538598776]
    np.testing.assert_allclose(time_noise(0, 0, 2), time, rtol=0, atol=1e-15)
    mask = [
        [[0.885041156713632, 0.0557902658081002], [0.8066508744918839, 0.6685272873393681]],
        [[0.8099780369774728, 0.9049717445588488], [0.8927948784445364, 0.02667644334092867]],
    ]
    noise = mask_noise(7, 2, [5, 123456], 2, 2).numpy()
    np.testing.assert_allclose(noise, mask, rtol=0, atol=1e-15)
    assert permutation(1, 0, 8).tolist() == [7, 0, 5, 4, 6, 2, 3, 1]
    assert torch_generator(0, "init", 1).initial_seed() == 8856116294727430353
    known = ("init", "order", "time", "mask", "dropout", "decode", "probe", "validation", "sweep")
    assert STREAMS[: len(known)] == known  # New streams go to the end.


def test_a_longer_row_or_batch_keeps_the_earlier_numbers():
    long = mask_noise(1, 0, [9, 4], 50)
    assert (mask_noise(1, 0, [9, 4], 7) == long[..., :7]).all()
    np.testing.assert_array_equal(time_noise(1, 3, 4), time_noise(1, 3, 64)[:4])


def test_a_rows_noise_does_not_depend_on_the_other_rows_or_replicas():
    many = mask_noise(1, 2, [30, 8, 11], 6, replicas=3)
    assert (mask_noise(1, 2, [8], 6)[0, 0] == many[0, 1]).all()
    assert (mask_noise(1, 2, [11, 30], 6, replicas=2)[1] == many[1, [2, 0]]).all()


def test_neighbouring_addresses_share_no_number():
    addresses = [
        (seed, stream, word)
        for seed in (0, 1)
        for stream in ("time", "mask", "order")
        for word in ((), (1,), (2,), (0, 1), (1, 1), (0, 0, 1), (1, 0, 1))
    ]
    numbers = [generator(seed, stream, *word).random(200) for seed, stream, word in addresses]
    assert len(np.unique(np.concatenate(numbers))) == 200 * len(addresses)


def test_seeds_steps_epochs_samples_and_replicas_all_differ():
    base = mask_noise(0, 0, [0], 8)
    for other in (
        mask_noise(1, 0, [0], 8),
        mask_noise(0, 1, [0], 8),
        mask_noise(0, 0, [1], 8),
        mask_noise(0, 0, [0], 8, replicas=2)[1:],
        mask_noise(0, 0, [0], 8, stream="probe"),
    ):
        assert (other != base).all()
    assert (time_noise(0, 1, 8) != time_noise(0, 2, 8)).all()


def test_rows_in_different_epochs_have_the_noise_of_their_own():
    mixed = mask_noise(1, np.array([2, 0, 2]), [30, 8, 11], 6, replicas=2)
    assert (mixed[:, [0, 2]] == mask_noise(1, 2, [30, 11], 6, replicas=2)).all()
    assert (mixed[:, [1]] == mask_noise(1, 0, [8], 6, replicas=2)).all()


def test_mask_noise_is_uniform_and_neighbours_are_unrelated():
    noise = mask_noise(0, 0, range(400), 50)[0].numpy()
    assert stats.kstest(noise.ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(noise[:, 0], "uniform").pvalue > 1e-3
    assert noise.min() >= 0
    assert noise.max() < 1
    for left, right in ((noise[1:], noise[:-1]), (noise[:, 1:], noise[:, :-1])):
        assert abs(np.corrcoef(left.ravel(), right.ravel())[0, 1]) < 4 / np.sqrt(left.size)


def test_an_epochs_order_holds_every_row_once_and_changes_with_the_epoch():
    first, second = permutation(0, 0, 100), permutation(0, 1, 100)
    assert sorted(first) == list(range(100))
    assert (first != second).any()
    np.testing.assert_array_equal(first, permutation(0, 0, 100))


def test_torch_generators_are_addressed_too():
    def draw(*address: int) -> list[float]:
        return torch.rand(3, generator=torch_generator(0, "init", *address)).tolist()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_an_unknown_stream_or_too_long_an_address_is_refused():
    with pytest.raises(ValueError, match="three words"):
        generator(0, "mask", 1, 2, 3, 4)
    with pytest.raises(ValueError, match="not in tuple"):
        generator(0, "masks")
