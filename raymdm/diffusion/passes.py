"""What a composition costs, counted in rows that go through the model: as pure as arithmetic.

A pass is one row of one view, forward or backward. Validation and scoring are not counted, nor what
is computed a second time to save memory.
"""

from dataclasses import dataclass

from raymdm.config.estimator import EstimatorSection
from raymdm.diffusion.compose import needs_probe

FORWARD_SHARE = 1 / 3
"""Of the time of a forward and a backward pass, what the forward takes: a backward is two of it."""


@dataclass(frozen=True)
class Passes:
    """Passes of a run, those of its density's probe included.

    Attributes:
        forwards: forward passes.
        backwards: backward passes.
        probe_forwards: of the forwards, those of the probe.
        probe_backwards: of the backwards, those of the probe.
    """

    forwards: int
    backwards: int
    probe_forwards: int
    probe_backwards: int

    @property
    def work(self) -> float:
        """All passes in units of a forward with its backward."""
        return self.backwards + FORWARD_SHARE * (self.forwards - self.backwards)

    @property
    def trained(self) -> int:
        """Passes of the optimiser's steps, each a forward and a backward."""
        return self.backwards - self.probe_backwards


def step_passes(section: EstimatorSection, batch_size: int) -> int:
    """Forward (and backward) passes of an optimiser step on so many rows."""
    return section.masker.views * batch_size


def count_passes(
    section: EstimatorSection, batch_size: int, steps: int, rows: int | None = None
) -> Passes:
    """Passes of a run of so many steps.

    Args:
        section: the composition.
        batch_size: rows of the global batch.
        steps: of the optimiser.
        rows: training rows, where they may be fewer than a probe wants.
    """
    trained = steps * step_passes(section, batch_size)
    density = section.density
    probed = 0
    if needs_probe(section) and density.file is None:
        probe = density.probe
        if probe.kind == "count":
            probed = probe.draws
        else:
            found = probe.rows if rows is None else min(probe.rows, rows)
            probed = probe.rates * probe.masks * found * section.masker.views
    backwards = probed if density.moment == "gradient" else 0
    return Passes(trained + probed, trained + backwards, probed, backwards)
