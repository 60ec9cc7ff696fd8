"""The window shuffle and mixtures: what a step holds depends on the seed and the step alone."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raymdm.data.mixture import MixedOrder, quotas
from raymdm.data.order import Order, Steps, WindowOrder
from raymdm.errors import ConfigurationError, DataError

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=12).map(tuple)


@st.composite
def window_orders(draw: st.DrawFn) -> WindowOrder:
    sizes = draw(SIZES)
    batch = draw(st.integers(1, min(16, sum(sizes))))
    return WindowOrder(draw(st.integers(0, 5)), sizes, batch, draw(st.integers(1, 6)))


def epoch_of(order: Steps, epoch: int) -> np.ndarray:
    first = epoch * order.steps_per_epoch
    return np.array([order.samples(first + step) for step in range(order.steps_per_epoch)])


@given(window_orders(), st.integers(0, 3))
def test_an_epoch_shows_every_row_once_but_those_that_fill_no_batch(
    order: WindowOrder, epoch: int
) -> None:
    seen = epoch_of(order, epoch).ravel()
    assert seen.min() >= 0
    assert seen.max() < order.rows
    assert len(set(seen.tolist())) == len(seen) == order.rows // order.batch_size * order.batch_size


@given(window_orders(), st.data())
def test_a_step_is_a_pure_function_of_the_seed(order: WindowOrder, data: st.DataObject) -> None:
    """Whatever was asked before, and in another process too."""
    step = data.draw(st.integers(0, 4 * order.steps_per_epoch))
    expected = order.samples(step)
    other = pickle.loads(pickle.dumps(order))
    for earlier in data.draw(st.lists(st.integers(0, 4 * order.steps_per_epoch), max_size=4)):
        other.samples(earlier)
    assert np.array_equal(other.samples(step), expected)


@given(window_orders())
def test_a_window_takes_its_rows_from_few_fragments_and_about_as_many_rows(
    order: WindowOrder,
) -> None:
    """Its rows are within half a batch of `blocks` average fragments, and at least a batch."""
    rows = order.window_steps * order.batch_size
    wanted = order.blocks * order.rows / len(order.fragment_rows)
    assert rows == order.batch_size or abs(rows - wanted) <= order.batch_size / 2
    ends = np.cumsum(order.fragment_rows)
    for step in range(2 * order.steps_per_epoch):
        needed = set(np.searchsorted(ends, order.samples(step), side="right").tolist())
        named = order.fragments(step)
        assert needed <= set(named.tolist())
        assert sum(order.fragment_rows[number] for number in named) <= rows + 2 * max(
            order.fragment_rows
        )


@given(window_orders())
def test_steps_until_the_next_window_need_the_same_fragments(order: WindowOrder) -> None:
    step = 0
    while step < 2 * order.steps_per_epoch:
        stop = order.until(step)
        assert stop - step <= order.window_steps
        assert order.epoch(stop - 1) == order.epoch(step)
        for other in range(step, stop):
            assert order.until(other) == stop
            assert np.array_equal(order.fragments(other), order.fragments(step))
        step = stop


def test_rows_mix_inside_a_window_and_fragments_from_epoch_to_epoch() -> None:
    order = WindowOrder(seed=1, fragment_rows=(100,) * 20, batch_size=10, blocks=4)
    first = epoch_of(order, 0)
    touched = [len(set((batch // 100).tolist())) for batch in first]
    assert np.mean(touched) > 3, "a batch has rows of all four fragments"
    assert (np.diff(first[0]) < 0).any()
    windows = [set((first[start : start + 40] // 100).ravel().tolist()) for start in (0, 40)]
    again = set((epoch_of(order, 1)[:40] // 100).ravel().tolist())
    assert len(windows[0]) == 4
    assert not windows[0] & windows[1]
    assert again != windows[0]


def test_neither_fragments_nor_rows_depend_on_each_other_or_on_the_source() -> None:
    def order(**changed: object) -> np.ndarray:
        fields = {"seed": 1, "fragment_rows": (50,) * 6, "batch_size": 10, "blocks": 2}
        return epoch_of(WindowOrder(**{**fields, **changed}), 0)  # type: ignore[arg-type]

    for changed in ({"seed": 2}, {"source": 1}):
        assert not np.array_equal(order(**changed), order())
    assert not np.array_equal(epoch_of(Order(1, 60, 10, 1), 0), epoch_of(Order(1, 60, 10), 0))


def test_the_window_order_never_changes() -> None:
    """Literal numbers: with other ones no published run could be repeated."""
    order = WindowOrder(seed=7, fragment_rows=(5, 3, 4, 6), batch_size=4, blocks=2)
    assert order.window_steps == 2
    found = [order.samples(step).tolist() for step in (0, 1, 4, 5)]
    assert found == [[8, 15, 9, 16], [13, 12, 17, 14], [5, 17, 16, 13], [6, 14, 12, 15]]


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(DataError, match="7 training rows do not fill one global batch of 8"):
        WindowOrder(seed=0, fragment_rows=(3, 4), batch_size=8, blocks=1)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(1, 512))
def test_quotas_fill_the_batch_within_a_row_of_the_weights(
    weights: list[float], batch: int
) -> None:
    try:
        found = quotas(weights, batch)
    except ConfigurationError:
        assert min(weights) / sum(weights) * batch < 1
        return
    assert sum(found) == batch
    exact = np.array(weights) / sum(weights) * batch
    assert np.abs(np.array(found) - exact).max() < 1
    assert min(found) > 0


def test_largest_remainders_get_the_odd_rows() -> None:
    assert quotas([1, 1, 1], 8) == [3, 3, 2]
    assert quotas([0.7, 0.2, 0.1], 16) == [11, 3, 2]
    assert quotas([3, 1], 4) == [3, 1]


def test_a_source_without_a_row_in_a_batch_is_named_with_the_batch_that_would_do() -> None:
    message = r"data\.sources\.1\.weight 0\.01 gives this source no row .* of 8; use 51 or more"
    with pytest.raises(ConfigurationError, match=message):
        quotas([1, 0.01], 8)
    assert quotas([1, 0.01], 51) == [50, 1]


def mixture() -> MixedOrder:
    return MixedOrder(3, (Order(3, 30, 4, 0), Order(3, 10, 2, 1)))


def test_every_step_of_a_mixture_has_its_quota_of_every_source() -> None:
    order = mixture()
    places = set()
    for step in range(20):
        samples = order.samples(step)
        assert (samples < 30).sum() == 4
        assert len(set(samples.tolist())) == 6
        assert samples.max() < 40
        places.add(tuple((samples < 30).tolist()))
    assert len(places) > 5, "slots are mixed anew at every step"


def test_sources_of_a_mixture_have_epochs_of_their_own() -> None:
    order = mixture()
    assert (order.batch_size, order.rows, order.steps_per_epoch) == (6, 40, 7)
    steps = range(10, 15)
    seen = np.concatenate([s[s >= 30] for s in map(order.samples, steps)])
    assert sorted(seen.tolist()) == list(range(30, 40)), "an epoch of the second is five steps"
    for step in steps:
        samples, epochs = order.samples(step), order.epochs(step)
        assert (epochs[samples >= 30] == 2).all()
        assert (epochs[samples < 30] == step // 7).all()
        assert order.epoch(step) == 2


def test_shares_of_a_mixture_make_up_the_batch() -> None:
    order = mixture()
    for parts in (1, 2, 3):
        shares = [order.share(4, part, parts)[1] for part in range(parts)]
        assert np.array_equal(np.concatenate(shares), order.samples(4))


@settings(max_examples=25)
@given(SIZES, SIZES, st.integers(0, 3))
def test_windows_of_a_mixture_name_the_fragments_of_all_sources(
    first: tuple[int, ...], second: tuple[int, ...], seed: int
) -> None:
    order = MixedOrder(
        seed, (WindowOrder(seed, first, 1, 2, 0), WindowOrder(seed, second, 1, 3, 1))
    )
    ends = np.cumsum(first + second)
    for step in range(2 * order.steps_per_epoch):
        needed = set(np.searchsorted(ends, order.samples(step), side="right").tolist())
        assert needed <= set(order.fragments(step).tolist())
        assert order.until(step) == max(part.until(step) for part in order.parts)


def test_a_step_of_a_billion_rows_is_computed_from_the_fragments_alone() -> None:
    """A permutation of all rows would take eight gigabytes."""
    order = WindowOrder(seed=0, fragment_rows=(100_000,) * 10_000, batch_size=32, blocks=2)
    samples = order.samples(10**8)
    fragments = set((samples // 100_000).tolist())
    assert order.epoch(10**8) == 3
    assert fragments <= set(order.fragments(10**8).tolist())
    assert len(fragments) in (2, 3)
