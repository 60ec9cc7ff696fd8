"""Where the noise of a model and a data set comes from, and what each estimator would buy.

Doors: `measure.measure` (configuration -> `Figures`), `write_figures` (`Figures` ->
`variance.json` and a page).
"""

from raymdm.variances.page import write_figures

__all__ = ["write_figures"]
