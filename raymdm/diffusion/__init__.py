"""The mathematics: noise addresses, mask rates and their densities, maskers, losses, the NELBO.

Doors: `make_estimator` (config or preset name -> `Estimator`), `fit_density` (probe curve ->
`TimeDensity`), `nelbo` (model and rows -> nats), `bound` (the same for either kind of model),
`choice_nats` (of given continuations, to choose among). Needs torch, numpy and scipy, no trainer.
"""

from raymdm.diffusion.compose import make_estimator
from raymdm.diffusion.density import TimeDensity, fit_density
from raymdm.diffusion.estimator import Estimator
from raymdm.diffusion.likelihood import bound, choice_nats, perplexity_bound
from raymdm.diffusion.nelbo import nelbo
from raymdm.diffusion.rows import Rows

__all__ = [
    "Estimator",
    "Rows",
    "TimeDensity",
    "bound",
    "choice_nats",
    "fit_density",
    "make_estimator",
    "nelbo",
    "perplexity_bound",
]
