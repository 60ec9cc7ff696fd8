"""Whether a worker's memory fits what there is."""

from dataclasses import dataclass
from typing import Literal

from raymdm.config import Config
from raymdm.diagnosis.machine import Cluster, Gpu
from raymdm.diagnosis.memory import Estimate
from raymdm.diagnosis.parts import GIB, size

Verdict = Literal["fits", "tight", "too large", "unknown"]

PROCESS = 1 * GIB
"""Taken by Python, its libraries and CUDA's context, about."""
LOOSE_GPU, LOOSE_HOST = 0.05, 0.3
"""Share that an allocator keeps beyond the tensors in it, about. glibc's was measured: 0.1 to 0.3
with tensors of up to 32 MiB, less with larger ones or with MALLOC_MMAP_THRESHOLD_=65536."""


@dataclass(frozen=True)
class Room:
    """Memory for one worker.

    Attributes:
        bytes: that a worker may take; None where nobody knows.
        what: in words.
        loose: share that its allocator needs on top.
    """

    bytes: float | None
    what: str
    loose: float = LOOSE_GPU

    def judge(self, needed: float) -> Verdict:
        """`tight` where only what the estimate leaves out does not fit."""
        if self.bytes is None:
            return "unknown"
        if needed * (1 + self.loose) + PROCESS <= self.bytes:
            return "fits"
        return "tight" if needed <= self.bytes else "too large"


def find_room(
    config: Config, given: float | None, gpus: list[Gpu], memory: int, cluster: Cluster
) -> Room:
    """The memory of the device of one worker.

    Args:
        config: of the run.
        given: bytes of a device that the user asks about.
        gpus: here.
        memory: bytes of this machine.
        cluster: in use.
    """
    if given is not None:
        return Room(given, "the device asked about")
    workers, nodes = config.cluster.workers, max(1, len(cluster.nodes))
    if config.cluster.gpus_per_worker:
        if not gpus:
            return Room(None, "no GPU here: ask with --device-memory GIB")
        least = min(gpu.memory for gpu in gpus)
        return Room(least, gpus[0].name)
    each = -(-workers // nodes)
    sharing = "to itself" if each == 1 else f"shared by {each} workers"
    return Room(memory / each, f"this machine's {size(memory)}, {sharing}", LOOSE_HOST)


def sentence(estimate: Estimate, room: Room) -> str:
    """Whether it fits, in one sentence."""
    needed = estimate.device_bytes
    what = f"a worker needs {size(needed)}"
    if room.bytes is None:
        return f"Whether it fits is unknown: {what}; {room.what}."
    there = f"{what}, and has {size(room.bytes)} ({room.what})"
    reserve = f"{size(PROCESS)} for the process and {room.loose:.0%} for its allocator"
    return {
        "fits": f"It fits: {there}, with {reserve} to spare.",
        "tight": f"It is tight: {there}, less than the {reserve} to spare.",
        "too large": f"It does not fit: {there}.",
    }[room.judge(needed)]
