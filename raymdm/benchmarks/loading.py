"""Memory of loading a checkpoint under ZeRO 3: two workers, against one copy of the model.

Each worker should never hold more than its share and one weight beside it. What is counted is the
workers' proportional resident memory (a page that both map, such as one of the checkpoint's file,
counts once) above what they held before, at its peak.
"""

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed
import torch.multiprocessing
from rich.table import Table

from raymdm.benchmarks.request import Report, Request
from raymdm.config import Config
from raymdm.models import ModelShape, SpecialTokens, build_model, load_shape, save_model
from raymdm.models.initial import shape_from_config
from raymdm.training.engine import import_deepspeed
from raymdm.training.starting import sharded_model

_INTERVAL = 0.02
_VOCABULARY = 32000
_SIZES = {"hidden_size": 1024, "layers": 16, "heads": 16, "intermediate_size": 2816}


@dataclass(frozen=True)
class LoadingFigures:
    """What was measured, in bytes.

    Attributes:
        workers: processes that loaded the model together.
        copy: one whole copy of the weights.
        peak: the most that all workers held above what they held before (the sum of their peaks).
        allowed: 1.3 copies and the shards, which are one copy together.
    """

    workers: int
    copy: int
    peak: int
    allowed: int


def bench(request: Request) -> Report:
    """Figures of a model of 0.27B parameters, or of the sizes that were set."""
    config = request.settings({"model": _SIZES})
    tokens = SpecialTokens(mask_token_id=2, eos_token_id=1, pad_token_id=0)
    shape = shape_from_config(config.model, vocabulary_size=_VOCABULARY, tokens=tokens)
    figures = measure_loading(request.folder, shape)
    return Report([table(figures)], asdict(figures))


def table(figures: LoadingFigures) -> Table:
    """The peak beside what a copy and the shares take."""
    copy = figures.copy
    made = Table(title=f"{figures.workers} workers load {copy / 2**30:.2f} GiB under ZeRO 3")
    made.add_column("resident memory")
    made.add_column("GiB", justify="right")
    made.add_column("copies", justify="right")
    for name, held in (
        ("one copy", copy),
        ("all workers, at the peak", figures.peak),
        ("1.3 copies and all shares", figures.allowed),
    ):
        made.add_row(name, f"{held / 2**30:.2f}", f"{held / copy:.2f}")
    return made


def measure_loading(folder: Path, shape: ModelShape, workers: int = 2) -> LoadingFigures:
    """Write a checkpoint of this shape and load it in so many new processes.

    Args:
        folder: an empty folder.
        shape: large enough for the libraries' own memory not to matter.
        workers: processes.
    """
    model = build_model(shape, 0)
    copy = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    save_model(model, folder / "model")
    del model
    arguments = (workers, str(folder))
    torch.multiprocessing.spawn(_load, arguments, nprocs=workers)
    peaks = [int((folder / f"peak-{rank}").read_text()) for rank in range(workers)]
    return LoadingFigures(workers, copy, sum(peaks), int(2.3 * copy))


def _load(rank: int, workers: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(workers), DS_ACCELERATOR="cpu"
    )
    store = torch.distributed.FileStore(f"{folder}/store", workers)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=workers)
    import_deepspeed().comm.init_distributed("gloo", verbose=False)
    config = Config.model_validate(
        {
            "model": {"init_from": f"{folder}/model"},
            "deepspeed": {"zero_stage": 3},
            "training": {"batch_size": workers},
            "cluster": {"workers": workers},
        }
    )
    shape = load_shape(f"{folder}/model")
    torch.distributed.barrier()
    with peak_memory() as peak:
        model = sharded_model(config, shape)
        torch.distributed.barrier()
    assert all(parameter.numel() == 0 for parameter in model.parameters())
    Path(folder, f"peak-{rank}").write_text(str(peak[0]))
    torch.distributed.destroy_process_group()


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """A list that holds, at the end of the block, by how many bytes the proportional resident
    memory of this process rose above what it was before.
    """
    before, found, over = proportional_memory(), [0], threading.Event()

    def watch() -> None:
        while not over.is_set():
            found[0] = max(found[0], proportional_memory() - before)
            time.sleep(_INTERVAL)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def proportional_memory() -> int:
    """Resident bytes of this process, shared pages divided by how many share them (Linux)."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
