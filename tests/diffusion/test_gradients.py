"""Gradients of single rows are exact, and their sketch keeps sums and inner products."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tiny import MASK, make_rows, tiny_model
from torch import Tensor

from raymdm.diffusion.cross_entropy import masked_cross_entropy
from raymdm.diffusion.gradients import (
    BLOCK,
    Sketch,
    batch_gradient,
    freeze_others,
    gradient_parameters,
    row_gradients,
)
from raymdm.errors import ConfigurationError
from raymdm.models import Backbone

ROWS = make_rows([((3, 7), (1, 4, 8)), ((2,), (5, 8)), ((6, 1), (0, 8))])
SIZES = {"first.weight": torch.empty(30, 7), "second.weight": torch.empty(41)}


def row_losses(model: Backbone, empty: int | None = None) -> Tensor:
    """The cross-entropy of every row with its whole response masked, but for the row `empty`."""
    masked = ROWS.eligible.clone()
    if empty is not None:
        masked[empty] = False
    return masked_cross_entropy(model, ROWS.input_ids, ROWS.attention_mask, masked, MASK)


def flat(gradients: Iterator[Tensor | None]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients if g is not None])


def vectors(seed: int) -> list[Tensor]:
    random = np.random.default_rng(seed)
    return [torch.from_numpy(random.standard_normal(size.shape)) for size in SIZES.values()]


def test_row_gradients_are_those_of_separate_backward_passes():
    model = tiny_model()
    parameters = gradient_parameters(model, "all")
    sketch = Sketch(0, 10**6, parameters)
    found, squares = row_gradients(row_losses(model), parameters, sketch)
    for row in range(len(ROWS)):
        model.zero_grad()
        row_losses(model)[row].backward()
        alone = flat(p.grad for p in model.parameters())
        torch.testing.assert_close(found[row], alone, rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(squares[row], alone.square().sum(), rtol=1e-10, atol=0)


def test_a_rows_sketch_is_the_sketch_of_its_gradient_and_its_norm_stays_exact():
    model = tiny_model()
    parameters = gradient_parameters(model, "all")
    sketch = Sketch(0, 16, parameters)
    found, squares = row_gradients(row_losses(model), parameters, sketch)
    for row in range(len(ROWS)):
        alone = torch.autograd.grad(row_losses(model)[row], list(parameters.values()))
        torch.testing.assert_close(found[row], sketch(alone), rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(squares[row], flat(iter(alone)).square().sum())
    assert found.shape == (3, 16)
    assert (found.dtype, squares.dtype) == (torch.float64, torch.float64)


def test_the_gradient_of_the_batch_is_the_sum_over_rows():
    model = tiny_model()
    parameters = gradient_parameters(model, "all")
    sketch = Sketch(0, 16, parameters)
    whole = batch_gradient(row_losses(model).sum(), parameters, sketch)
    rows, _ = row_gradients(row_losses(model), parameters, sketch)
    torch.testing.assert_close(whole, rows.sum(0), rtol=1e-10, atol=1e-13)


def test_a_row_with_an_empty_mask_has_gradient_zero():
    model = tiny_model()
    parameters = gradient_parameters(model, "all")
    sketch = Sketch(0, 16, parameters)
    full, norms = row_gradients(row_losses(model), parameters, sketch)
    found, squares = row_gradients(row_losses(model, empty=1), parameters, sketch)
    assert (found[1] == 0).all()
    assert squares[1] == 0
    torch.testing.assert_close(found[[0, 2]], full[[0, 2]], rtol=1e-10, atol=1e-14)
    assert norms[1] > 0


def test_a_batch_of_empty_masks_has_gradient_zero():
    model = tiny_model()
    parameters = gradient_parameters(model, "all")
    nothing = torch.zeros_like(ROWS.eligible)
    losses = masked_cross_entropy(model, ROWS.input_ids, ROWS.attention_mask, nothing, MASK)
    found, squares = row_gradients(losses, parameters, Sketch(0, 16, parameters))
    assert found.abs().sum() + squares.sum() == 0


def test_a_parameter_that_a_loss_does_not_use_has_gradient_zero():
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    parameters = {"unused": unused, "used": used}
    found = batch_gradient((3 * used).sum(), parameters, Sketch(0, 4, parameters))
    assert found.tolist() == [0, 0, 3, 3]


@pytest.mark.parametrize("rows", [1, 3])
def test_the_graph_is_freed_after_the_last_row(rows: int):
    model = tiny_model()
    parameters = gradient_parameters(model, "all")
    losses = row_losses(model)[:rows]
    row_gradients(losses, parameters, Sketch(0, 16, parameters))
    with pytest.raises(RuntimeError, match="second time"):
        losses[0].backward()


def test_a_small_subset_is_not_sketched():
    sketch = Sketch(0, 251, SIZES)
    gradients = vectors(0)
    assert sketch.exact
    assert sketch.dimension == 251
    assert sketch.relative_error == 0
    torch.testing.assert_close(sketch(gradients), flat(iter(gradients)), rtol=0, atol=0)
    larger = Sketch(0, 250, SIZES)
    assert not larger.exact
    assert larger(gradients).shape == (250,)


def test_the_sketch_of_a_sum_is_the_sum_of_the_sketches():
    sketch = Sketch(3, 20, SIZES)
    x, y = vectors(0), vectors(1)
    together = sketch([2 * a - 3 * b for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(together, 2 * sketch(x) - 3 * sketch(y), rtol=0, atol=1e-12)


def test_inner_products_are_kept_in_expectation_and_within_the_stated_error():
    x, y = vectors(0), vectors(1)
    y = [a + b for a, b in zip(x, y, strict=True)]
    for first, second in ((x, x), (x, y)):
        a, b = flat(iter(first)), flat(iter(second))
        exact, scale = float(a @ b), float(a.norm() * b.norm())
        sketches = [Sketch(seed, 24, SIZES) for seed in range(1000)]
        errors = np.array([float(s(first) @ s(second)) - exact for s in sketches])
        bound = sketches[0].relative_error * scale
        assert sketches[0].relative_error == pytest.approx((2 / 24) ** 0.5)
        assert abs(errors.mean()) < 4 * bound / 1000**0.5
        assert 0.5 * bound < np.sqrt(np.mean(errors**2)) < 1.1 * bound


def test_keeping_the_map_in_memory_changes_nothing():
    gradients = vectors(0)
    kept, drawn = Sketch(1, 20, SIZES), Sketch(1, 20, SIZES, cached=0)
    for _ in range(2):
        torch.testing.assert_close(kept(gradients), drawn(gradients), rtol=0, atol=0)


def test_a_parameter_goes_to_the_same_places_in_any_subset_and_any_type():
    x, y = vectors(0)
    zero = torch.zeros_like(y)
    both = Sketch(1, 20, SIZES)
    turned = Sketch(1, 20, dict(reversed(SIZES.items())))
    alone = Sketch(1, 20, {"second.weight": y})
    torch.testing.assert_close(both([x, y]), turned([y, x]), rtol=0, atol=1e-12)
    torch.testing.assert_close(both([torch.zeros_like(x), y]), alone([y]), rtol=0, atol=0)
    narrow = x.bfloat16()
    torch.testing.assert_close(both([narrow, zero]), both([narrow.double(), zero]), rtol=0, atol=0)


def test_a_parameter_longer_than_one_block_is_the_sum_of_its_blocks():
    size = BLOCK + 1000
    sketch = Sketch(0, 64, {"long": torch.empty(size)})
    whole = torch.from_numpy(np.random.default_rng(0).standard_normal(size))
    head, tail = whole.clone(), whole.clone()
    head[BLOCK:] = 0
    tail[:BLOCK] = 0
    torch.testing.assert_close(sketch([whole]), sketch([head]) + sketch([tail]))
    drawn = Sketch(0, 64, {"long": torch.empty(size)}, cached=0)
    torch.testing.assert_close(sketch([whole]), drawn([whole]), rtol=0, atol=0)
    # The second block has places of its own.
    moved = torch.zeros_like(whole)
    moved[:1000] = whole[BLOCK:]
    assert (sketch([moved]) - sketch([tail])).abs().max() > 1


def test_the_map_is_frozen():
    """A change of these numbers changes every sketched result that was ever recorded."""
    sketch = Sketch(5, 4, {"w": torch.empty(12)})
    numbers = torch.arange(1, 13, dtype=torch.float64)
    assert sketch([numbers]).tolist() == [7, -14, -10, -15]
    assert Sketch(6, 4, {"w": numbers})([numbers]).tolist() != sketch([numbers]).tolist()
    assert Sketch(5, 4, {"v": numbers})([numbers]).tolist() != sketch([numbers]).tolist()


def test_gradients_of_other_parameters_are_refused():
    with pytest.raises(ValueError, match="not those"):
        Sketch(0, 20, SIZES)(list(reversed(vectors(0))))
    with pytest.raises(ValueError, match="not those"):
        Sketch(0, 20, SIZES)(vectors(0)[:1])
    with pytest.raises(ValueError, match="at least one"):
        Sketch(0, 0, SIZES)


def test_subsets_of_the_parameters():
    model = tiny_model()
    names = [name for name, _ in model.named_parameters()]
    assert list(gradient_parameters(model, "all")) == names
    last = [name for name in names if name.startswith(("blocks.1.", "norm."))]
    assert list(gradient_parameters(model, "last_block")) == last
    assert len(last) == 10
    assert list(gradient_parameters(model, "^head")) == ["head.weight"]
    assert len(gradient_parameters(model, r"attention\.(query|value)")) == 4


def test_the_last_block_is_the_one_with_the_greatest_number():
    class Deep(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(11))
            self.norm = torch.nn.LayerNorm(1)

    found = list(gradient_parameters(Deep(), "last_block"))
    assert found == ["blocks.10.weight", "blocks.10.bias", "norm.weight", "norm.bias"]


def test_only_trained_parameters_are_measured():
    model = tiny_model()
    model.embedding.requires_grad_(False)
    assert "embedding.weight" not in gradient_parameters(model, "all")
    model.blocks[1].requires_grad_(False)
    assert list(gradient_parameters(model, "last_block")) == ["norm.weight"]
    with pytest.raises(ConfigurationError, match="no trained parameter"):
        gradient_parameters(model, "embedding")


def test_a_subset_that_matches_nothing_or_is_no_expression_is_refused():
    with pytest.raises(ConfigurationError, match=r"'lora_' match no .*head\.weight"):
        gradient_parameters(tiny_model(), "lora_")
    with pytest.raises(ConfigurationError, match="no regular expression"):
        gradient_parameters(tiny_model(), "blocks.(")


def test_the_other_parameters_are_frozen():
    model = tiny_model()
    parameters = gradient_parameters(model, "last_block")
    before = row_gradients(row_losses(model), parameters, Sketch(0, 10**6, parameters))
    freeze_others(model, parameters)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == list(parameters)
    after = row_gradients(row_losses(model), parameters, Sketch(0, 10**6, parameters))
    torch.testing.assert_close(after, before, rtol=1e-12, atol=0)
