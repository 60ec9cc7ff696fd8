"""Sweeps: the design (arms × seeds × settings), one trial of it, and the Ray Tune driver.

Doors: `make_design` (configuration -> trials), `run_trial` (one of them), `run_sweep` (all).
"""

from raymdm.sweeps.design import Trial, make_design
from raymdm.sweeps.driver import run_sweep
from raymdm.sweeps.trial import run_trial

__all__ = ["Trial", "make_design", "run_sweep", "run_trial"]
