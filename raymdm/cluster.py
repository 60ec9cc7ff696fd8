"""Joining or starting Ray, the same way for every verb."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from raymdm.errors import ClusterError

CONNECT_SECONDS = 10.0


@contextmanager
def start_ray(
    address: str = "auto", *, cpus: int | None = None, verbose: bool = False
) -> Iterator[None]:
    """Ray is up inside this context; at its end only what was started here is shut down.

    Args:
        address: `auto` joins the cluster that RAY_ADDRESS names (Ray sets it in a submitted job),
            else starts a local one; `local` always starts one; anything else is an address.
        cpus: CPUs of a cluster that is started here; None takes the machine's, but at least two:
            one core shared by a worker and the reading of its data is slow, not impossible.
        verbose: Show Ray's own logs and those of its workers.

    Raises:
        ClusterError: there is no cluster at that address, or Ray does not start.
    """
    if ray.is_initialized():  # a notebook, a test, or a verb called by another one
        yield
        return
    if address == "auto":
        # A plain ray.init() would join whatever was left running on this machine.
        address = os.environ.get("RAY_ADDRESS") or "local"
    level = logging.INFO if verbose else logging.ERROR
    logical = cpus or max(2, os.cpu_count() or 1)
    started = {"num_cpus": logical} if address == "local" else {}
    try:
        _check_reachable(address)
        # The dashboard stays on where one is started: Ray Train's clean-up needs it.
        ray.init(address, log_to_driver=verbose, logging_level=level, **started)
    except Exception as error:  # Ray raises bare ones too
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if address == "local":
            raise ClusterError(
                f"a local Ray cluster did not start ({reason}); the machine may be overloaded or "
                "out of memory: free it and run the command again"
            ) from error
        raise ClusterError(
            f"cluster.address: Ray at {address!r} cannot be reached ({reason}); start it, or use "
            "`--set cluster.address=local`"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def worker_slots(cpus: float, gpus: float) -> int:
    """How many workers of this size the cluster holds, counted node by node."""
    slots = 0
    for node in ray.nodes():
        if node["Alive"]:
            there = node["Resources"]
            fits = there.get("CPU", 0) / cpus
            slots += int(min(fits, there.get("GPU", 0) / gpus if gpus else fits) + 1e-9)
    return slots


def check_cluster(workers: int, cpus: float, gpus: float, more_cpus: float, advice: str) -> None:
    """Refuse what the cluster can never hold, instead of waiting for it for ever.

    Args:
        workers: how many.
        cpus: of each worker.
        gpus: of each worker.
        more_cpus: needed beside the workers, on any node.
        advice: which keys to change.

    Raises:
        ClusterError: names what is asked for and what is there.
    """
    there = ray.cluster_resources()
    needed = workers * cpus + more_cpus
    if worker_slots(cpus, gpus) < workers or needed > there.get("CPU", 0):
        raise ClusterError(
            f"{workers} workers of {cpus:g} CPUs and {gpus:g} GPUs, and {more_cpus:g} CPUs beside "
            f"them, do not fit the cluster: it has {there.get('CPU', 0):g} CPUs and "
            f"{there.get('GPU', 0):g} GPUs on {len(ray.nodes())} nodes; {advice}"
        )


def _check_reachable(address: str) -> None:
    """Raise OSError where nobody listens: Ray itself would go on trying for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
