"""Where the noise of a model and a data set comes from, and what each estimator would buy.

Doors: `measure` (configuration -> `Figures`), `write_figures` (table, `variance.json`, page).
"""

from raymdm.variances.page import write_figures

__all__ = ["write_figures"]
