"""Peak memory of a piece of work, in a process that has done nothing else."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

import torch

from raymdm.errors import RunError

Result = TypeVar("Result")


def in_fresh_process(what: str, function: Callable[..., Result], *arguments: object) -> Result:
    """What the function returns in a process of its own.

    Raises:
        RunError: the process was killed, most likely for its memory; says `what` it did.
    """
    # Forked from a process that has imported the function's module and computed nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise RunError(
                f"bench: {what} was killed, most likely for want of memory; try a smaller "
                "training.batch_size"
            ) from error


def peak_beyond_now(work: Callable[[], object], device: torch.device) -> int:
    """Bytes that work takes beyond what is held now, at the most.

    On a GPU what torch allocated; on a CPU resident memory, where the peak is that of the whole
    process: nothing larger may have been held before.

    Raises:
        RunError: it took no page of memory that had not been held before.
    """
    peak = _peak(work, device)
    if peak <= 0:
        raise RunError("bench: too little memory is used to be measured; take a larger model")
    return peak


def _peak(work: Callable[[], object], device: torch.device) -> int:
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    before = resident_bytes("VmRSS")
    work()
    return resident_bytes("VmHWM") - before


def resident_bytes(field: str) -> int:
    """Bytes of resident memory now (`VmRSS`) or at most so far (`VmHWM`), as Linux counts them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return 1024 * int(value.split()[0])
    raise RunError(f"/proc/self/status has no {field}: memory is measured on Linux only")
