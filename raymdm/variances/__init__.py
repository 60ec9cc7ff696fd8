"""Where the noise of a model and a data set comes from, and what each estimator would buy.

Doors: `measure` (configuration -> `Figures`), `write_figures` (table, `variance.json`, page).
"""
