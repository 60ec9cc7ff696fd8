"""From what a probe measured to the density that a composition asks for."""

import numpy as np

from raymdm.config.estimator import EstimatorSection
from raymdm.diffusion.count_probe import CountMoments, count_curve, rate_moments
from raymdm.diffusion.density import TimeDensity, density_curve, fit_density
from raymdm.diffusion.probe import Curve
from raymdm.errors import RunError


def density_from_curve(curve: Curve, section: EstimatorSection, seed: int) -> TimeDensity:
    """The density fitted to a curve of moments against the rate (or the share k/n masked).

    Raises:
        RunError: moments that no density fits, such as those of losses that are not finite.
    """
    density = section.density
    try:
        root = density_curve(curve.second, curve.mean_square, density.target)
        return fit_density(
            curve.t,
            root,
            kind=density.kind,
            starts=density.fit_starts,
            mixing=density.mixing,
            seed=seed,
            epsilon=section.epsilon,
        )
    except ValueError as error:
        raise RunError(
            f"the probe of the starting model gave nothing to fit a density to ({error}); are its "
            "weights and losses finite?"
        ) from error


def density_from_counts(moments: CountMoments, section: EstimatorSection, seed: int) -> TimeDensity:
    """The density fitted to a count probe: over rates, or over shares for exact counts."""
    return density_from_curve(counted_curve(moments, section), section, seed)


def counted_curve(moments: CountMoments, section: EstimatorSection) -> Curve:
    """The curve that a composition's density is fitted to, from a count probe."""
    density = section.density
    if section.normalize == "token":
        moments = moments.by_token()
    if section.masker.kind == "count":
        return count_curve(moments, density.probe.rates, density.moment)
    # Finer towards the pole at 0; evaluated, not measured, so that any rates will do.
    t = (np.arange(1, density.probe.rates + 1) / density.probe.rates) ** 2
    return rate_moments(moments, t, section.epsilon, density.moment)
