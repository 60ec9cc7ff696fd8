"""What the workers of a run tell each other. If one raises, Ray Train ends them all."""

import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed

T = TypeVar("T")


def gathered(value: T) -> list[T]:
    """What every rank has here, in the order of the ranks."""
    values: list[Any] = [value] * torch.distributed.get_world_size()
    if len(values) > 1:
        torch.distributed.all_gather_object(values, value)
    return values


def first_says(work: Callable[[], T]) -> T:
    """Rank 0's result of `work`, on every rank; the others do not do it."""
    box: list[Any] = [work() if torch.distributed.get_rank() == 0 else None]
    if torch.distributed.get_world_size() > 1:
        torch.distributed.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[no-any-return]


@contextmanager
def node_folder(purpose: str, fill: Callable[[Path], None]) -> Iterator[Path]:
    """A local folder that one worker of each node fills and all workers of the node then see."""
    hosts = gathered(socket.gethostname())
    rank = torch.distributed.get_rank()
    leader = hosts.index(hosts[rank])
    own = Path(tempfile.mkdtemp(prefix=f"raymdm-{purpose}-")) if leader == rank else None
    try:
        if own is not None:
            fill(own)
        # Every worker waits here for the folders to be filled, and below before one is removed.
        folder = gathered(own)[leader]
        assert folder is not None
        yield folder
        torch.distributed.barrier()
    finally:
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)
