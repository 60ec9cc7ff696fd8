"""What a machine has, and what memory a run needs: the estimate behind `raymdm doctor`.

Doors: `estimate` (configuration, shape, lengths of rows -> memory of a worker, by part and moment),
`check_estimate` (the same against two real steps), `look_around` (versions and devices).
"""

from raymdm.diagnosis.alternatives import list_alternatives
from raymdm.diagnosis.checking import check_estimate
from raymdm.diagnosis.fit import find_room
from raymdm.diagnosis.lengths import read_lengths, read_shape
from raymdm.diagnosis.machine import find_cluster, look_around, operations
from raymdm.diagnosis.memory import Estimate, estimate

__all__ = [
    "Estimate",
    "check_estimate",
    "estimate",
    "find_cluster",
    "find_room",
    "list_alternatives",
    "look_around",
    "operations",
    "read_lengths",
    "read_shape",
]
