"""Units of work: each a pure function of the laboratory's seed, of a size that never changes.

A unit returns plain arrays, so that a finished one can be kept on disk and read back.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from raymdm.config.loading import fingerprint
from raymdm.diffusion import make_estimator
from raymdm.diffusion.compose import unweighted
from raymdm.diffusion.count_probe import count_probe
from raymdm.diffusion.noise import mask_noise
from raymdm.diffusion.probe import grid_probe
from raymdm.randomness import generator
from raymdm.variances.laboratory import Contender, Laboratory, plain, reflected

Arrays = dict[str, np.ndarray]

# Places in the stream "probe" of the decomposition's rates and masks.
_CROSSED, _NESTED = 4, 5
_MEASURED = 2**62
"""First word of the measured half's count probe, which shares no noise with those that are fitted
to."""
_EPOCHS = {"crossed": 2 * 10**6, "nested": 10**6}


class Unit(Protocol):
    """Something to be measured by one actor."""

    @property
    def name(self) -> str:
        """Unique among the units of a measurement; a file name."""

    def run(self, laboratory: Laboratory) -> Arrays:
        """The measurement."""


@dataclass(frozen=True)
class Decompose:
    """One row at T rates with M masks, by Standard.

    `crossed` takes the rates that all rows share, and MIRROR's second view of every mask too;
    `nested` takes rates of the row's own.
    """

    sequence: int
    design: str

    @property
    def name(self) -> str:
        """Unique name."""
        return f"{self.design}-{self.sequence}"

    def run(self, laboratory: Laboratory) -> Arrays:
        """t[T], n; loss[T, M, V], sketch[T, M, V, D] and squared norm[T, M, V], V views."""
        section, seed = laboratory.section, laboratory.seed
        row = laboratory.rows(laboratory.measured_rows[[self.sequence]], [self.sequence])
        estimator = make_estimator(plain(laboratory.config.estimator))
        t = decomposition_rates(seed, section.rates, self.design, self.sequence)
        views = 2 if self.design == "crossed" else 1
        shape = (section.rates, section.masks, views)
        loss, square = np.empty(shape), np.empty(shape)
        sketch = np.empty((*shape, laboratory.sketch.dimension))
        length = row.input_ids.shape[1]
        for j, rate in enumerate(t):
            epoch = _EPOCHS[self.design] + j
            noise = mask_noise(seed, epoch, row.samples, length, section.masks, "probe")
            for m in range(section.masks):
                plane = noise[m : m + 1]
                for v, shown in enumerate((plane, reflected(plane))[:views]):
                    place = j, m, v
                    loss[place], sketch[place], square[place] = laboratory.single(
                        estimator, row, float(rate), shown
                    )
        n = row.response_lengths.cpu().numpy()
        return {"t": t, "loss": loss, "sketch": sketch, "square": square, "length": n[0]}


def decomposition_rates(seed: int, rates: int, design: str, sequence: int) -> np.ndarray:
    """Independent uniform rates[T]: of all rows (`crossed`, ascending), or of one."""
    if design == "crossed":
        return np.sort(generator(seed, "probe", 0, _CROSSED).random(rates))
    return generator(seed, "probe", 0, _NESTED, sequence).random(rates)


@dataclass(frozen=True)
class CountShare:
    """A share of a count probe.

    With a contender, of what `train` would fit its density to: its own probe's rows and draws, of
    the fitting half. Without one, of the measured half, for the predictions.
    """

    part: int
    parts: int
    contender: Contender | None = None

    @property
    def name(self) -> str:
        """Of what is probed: compositions of equal probes share one."""
        if self.contender is None:
            return f"count-measured-{self.part}"
        section = self.contender.section
        probed = {"eligible": section.eligible, **section.density.probe.model_dump()}
        return f"count-{fingerprint(probed)}-{self.part}"

    def run(self, laboratory: Laboratory) -> Arrays:
        """The plan of all draws, and this share's losses, sketches and squared norms."""
        section = laboratory.section
        if self.contender is None:
            # Few draws of many rows: what differs from row to row must not be that of a few.
            numbers = laboratory.measured_rows[: max(section.rows, section.draws // 4)]
            draws, place = section.draws, _MEASURED
            rows = laboratory.rows(numbers, [int(number) for number in numbers])
            eligible = rows.eligible
        else:
            probe = self.contender.section.density.probe
            numbers = laboratory.fit_rows[: probe.rows]
            draws, place = probe.draws, 0
            rows = laboratory.rows(numbers, [int(number) for number in numbers])
            eligible = self.contender.estimator_of_views.eligible(rows)
        moments = count_probe(
            laboratory.model,
            laboratory.job.shape.mask_token_id,
            rows,
            seed=laboratory.seed,
            draws=draws,
            batch_size=1,
            gradient=(laboratory.parameters, laboratory.sketch),
            eligible=eligible,
            part=self.part,
            parts=self.parts,
            place=place,
        )
        mine = slice(self.part, None, self.parts)
        plan = ("lengths", "counts", "proposals", "rows", "lattices")
        measured = ("losses", "sketches", "squared_norms")
        return {
            **{name: getattr(moments, name) for name in plan},
            **{name: getattr(moments, name)[mine] for name in measured},
        }


@dataclass(frozen=True)
class GridShare:
    """A share of the rates of a grid probe, with a composition's own masker."""

    contender: Contender
    part: int
    parts: int

    @property
    def name(self) -> str:
        """Of what is probed: compositions that differ in their rates only share a probe."""
        section = self.contender.section
        density = section.density.model_dump(include={"moment", "probe"})
        probed = fingerprint({**unweighted(section).model_dump(), "density": density})
        return f"grid-{probed}-{self.part}"

    def run(self, laboratory: Laboratory) -> Arrays:
        """The curve, NaN at the other shares' rates."""
        section = self.contender.section
        probe = section.density.probe
        numbers = laboratory.fit_rows[: probe.rows]
        rows = laboratory.rows(numbers, [int(number) for number in numbers])
        gradient = None
        if section.density.moment == "gradient":
            gradient = (laboratory.parameters, laboratory.sketch)
        curve = grid_probe(
            laboratory.model,
            laboratory.job.shape.mask_token_id,
            rows,
            self.contender.estimator_of_views,
            seed=laboratory.seed,
            rates=probe.rates,
            masks=probe.masks,
            batch_size=probe.batch_size,
            gradient=gradient,
            part=self.part,
            parts=self.parts,
        )
        return {"t": curve.t, "second": curve.second, "mean_square": curve.mean_square}


@dataclass(frozen=True)
class WarmUp:
    """Losses of some batches of the fitting half: what a training stream would have shown."""

    contender: Contender
    first: int
    count: int

    @property
    def name(self) -> str:
        """Unique name."""
        return f"stream-{self.contender.key}-{self.first}"

    def run(self, laboratory: Laboratory) -> Arrays:
        """t[G, N], weight[G, N], view losses[G, K, N] and denominators[G, N]."""
        draws = [
            laboratory.batch(
                self.contender,
                laboratory.drawn_rows(laboratory.fit_rows, 10**6 + step),
                10**6 + step,
                gradient=False,
            )
            for step in range(self.first, self.first + self.count)
        ]
        return {
            "t": np.stack([draw.t for draw in draws]),
            "weight": np.stack([draw.weight for draw in draws]),
            "view_losses": np.stack([draw.view_losses for draw in draws]),
            "denominators": np.stack([draw.denominators for draw in draws]),
        }


@dataclass(frozen=True)
class Batches:
    """Whole batches under one estimator: each group of rows twice, with other rates and masks."""

    contender: Contender
    first: int
    count: int

    @property
    def name(self) -> str:
        """Unique name."""
        return f"batches-{self.contender.key}-{self.first}"

    def run(self, laboratory: Laboratory) -> Arrays:
        """loss[G, 2] and gradient[G, 2, D] of the batch."""
        loss = np.empty((self.count, 2))
        gradient = np.empty((self.count, 2, laboratory.sketch.dimension))
        for index, group in enumerate(range(self.first, self.first + self.count)):
            numbers = laboratory.drawn_rows(laboratory.measured_rows, group)
            for again in range(2):
                draw = laboratory.batch(self.contender, numbers, 2 * group + again)
                loss[index, again], gradient[index, again] = draw.loss, draw.gradient
        return {"loss": loss, "gradient": gradient}
