"""Is a difference between arms real, or seed noise? Statistics, tables, pictures and the report.

Doors: `compare` (a table of runs -> `Verdict`), `read_sweep` (a sweep directory -> `Results`),
`summarise` (results -> every verdict, in numbers and in words). Before and during the runs: `reach`
and `can_reach` (what so many seeds can see), `SequentialDesign` and `look` (seeds added until the
question is decided). Nothing here needs Ray or torch.
"""

from raymdm.verdict.decision import ArmVerdict, Verdict, compare
from raymdm.verdict.power import can_reach, reach
from raymdm.verdict.results import Results, read_runs, read_sweep
from raymdm.verdict.sequential import SequentialDesign, look
from raymdm.verdict.summary import Summary, summarise

__all__ = [
    "ArmVerdict",
    "Results",
    "SequentialDesign",
    "Summary",
    "Verdict",
    "can_reach",
    "compare",
    "look",
    "reach",
    "read_runs",
    "read_sweep",
    "summarise",
]
