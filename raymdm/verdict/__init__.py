"""Is a difference between arms real, or seed noise? Statistics, tables, pictures and the report.

Doors: `compare` (a table of runs -> `Verdict`), `read_sweep` (a sweep directory -> `Results`),
`summarise` (results -> every verdict, in numbers and in words). Nothing here needs Ray or torch.
"""

from raymdm.verdict.decision import ArmVerdict, Verdict, compare
from raymdm.verdict.results import Results, read_runs, read_sweep
from raymdm.verdict.summary import Summary, summarise

__all__ = [
    "ArmVerdict",
    "Results",
    "Summary",
    "Verdict",
    "compare",
    "read_runs",
    "read_sweep",
    "summarise",
]
