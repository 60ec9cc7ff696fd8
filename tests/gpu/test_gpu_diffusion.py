"""Losses, gradients, bounds and probes on a GPU are those of the CPU."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from device import GPU, MASK, ON_GPU, small_model, uneven_rows

from raymdm.config.loading import read_config, validate
from raymdm.diffusion import Rows, bound, make_estimator, nelbo
from raymdm.diffusion.compose import needs_probe, unweighted
from raymdm.diffusion.count_probe import count_probe
from raymdm.diffusion.gradients import Sketch, gradient_parameters
from raymdm.diffusion.probe import grid_probe
from raymdm.models import Backbone, Execution

pytestmark = ON_GPU

ESTIMATORS = sorted(
    path.stem for path in (Path(__file__).parents[2] / "configs" / "estimators").glob("*.yaml")
)


def both(model: Backbone, rows: Rows) -> list[tuple[Backbone, Rows]]:
    """The same on the CPU and on the GPU."""
    return [(model, rows), (copy.deepcopy(model).to(GPU), rows.to(GPU))]


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_loss_and_gradient_of_every_estimator(name: str, packed: bool) -> None:
    section = validate(read_config([f"estimators/{name}"])).estimator
    estimator = make_estimator(unweighted(section) if needs_probe(section) else section)
    rows = uneven_rows()
    noise = estimator.draw_noise(0, 0, rows)
    t = np.linspace(0.2, 0.9, len(rows))
    model = small_model(causal=section.objective == "autoregressive").double()
    model.execution = Execution(packed=packed)
    found = []
    for there, given in both(model, rows):
        losses = estimator.row_losses(there, MASK, given, t, noise)
        losses.sum().backward()
        gradients = [p.grad.cpu() for p in there.parameters() if p.grad is not None]
        found.append([losses.detach().cpu(), *gradients])
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_nelbo(guidance: float) -> None:
    one, other = (
        nelbo(model, MASK, rows, exact_up_to=3, draws=6, guidance=guidance)
        for model, rows in both(small_model().double(), uneven_rows())
    )
    np.testing.assert_allclose(other.per_row, one.per_row, rtol=1e-9)
    np.testing.assert_allclose(other.variance, one.variance, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_bound(causal: bool) -> None:
    model = small_model(causal=causal).double()
    one, other = (
        bound(there, MASK, rows, causal=causal, exact_up_to=3, draws=6, batch_size=4)
        for there, rows in both(model, uneven_rows())
    )
    np.testing.assert_allclose(other.per_row, one.per_row, rtol=1e-9)


@pytest.mark.parametrize("which", [None, "all", "last_block"])
def test_probes(which: str | None) -> None:
    """Of the loss, and of gradients that are sketched (`all`)."""
    estimator = make_estimator(validate({}).estimator)
    curves, counts = [], []
    for model, rows in both(small_model().double(), uneven_rows()):
        gradient = None
        if which is not None:
            parameters = gradient_parameters(model, which)
            gradient = (parameters, Sketch(0, 64, parameters))
        curves.append(
            grid_probe(model, MASK, rows, estimator, seed=0, rates=4, masks=2, gradient=gradient)
        )
        counts.append(
            count_probe(
                model,
                MASK,
                rows,
                seed=0,
                draws=12,
                batch_size=4,
                gradient=gradient,
                eligible=estimator.eligible(rows),
            )
        )
    np.testing.assert_allclose(curves[1].second, curves[0].second, rtol=1e-9)
    np.testing.assert_allclose(curves[1].mean_square, curves[0].mean_square, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(counts[1].losses, counts[0].losses, rtol=1e-9)
    if which is not None:
        np.testing.assert_allclose(counts[1].sketches, counts[0].sketches, rtol=1e-6, atol=1e-9)
