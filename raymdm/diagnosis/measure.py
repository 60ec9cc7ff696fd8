"""python -m raymdm.diagnosis.measure FOLDER : the process whose memory `checking.py` measures.

Reads `config.yaml` of the folder and writes `measured.json` beside it. Linux only.
"""

import gc
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from raymdm.benchmarks.memory import resident_bytes
from raymdm.command import quiet
from raymdm.config import Config
from raymdm.config.loading import validate
from raymdm.data.stream import read_steps
from raymdm.diagnosis.checking import RESULT, SMALL, STEPS
from raymdm.errors import RaymdmError, RunError
from raymdm.training import RunDirectory
from raymdm.training.checkpoint import Checkpoints
from raymdm.training.engine import process_group_of_one
from raymdm.training.job import Job, make_job
from raymdm.training.worker import Worker


def main(folder: Path) -> None:
    """Run two steps and write down the process's memory before, and the peak beyond that."""
    quiet(verbose=False)
    config = validate(yaml.safe_load((folder / "config.yaml").read_text()))
    gpu = config.cluster.gpus_per_worker > 0
    with process_group_of_one(gpu):
        # What libraries load and set up at their first use belongs to the process.
        run_steps(make_job(_small(config, folder), RunDirectory(folder / SMALL / "run")))
        gc.collect()
        process = resident_bytes("VmRSS")
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        job = make_job(config, RunDirectory(config.run_dir))
        # Weights are drawn, not read: pages of a mapped file are no memory of the process.
        run_steps(replace(job, config=_new_weights(config)))
        # The peak of the process's life, but what came before was small.
        measured = torch.cuda.max_memory_allocated() if gpu else resident_bytes("VmHWM") - process
    (folder / RESULT).write_text(json.dumps({"measured": measured, "process": process}))


def run_steps(job: Job) -> None:
    """The model, the engine and the first optimiser steps, as a run does them."""
    RunDirectory.open(job.config, job.manifest.fingerprint, resume=False)
    worker = Worker(job, Checkpoints.direct(job.config, job.run))
    for rows in read_steps(job.train, job.order, 0, STEPS):
        problem = worker.step(rows)
        if problem is not None:
            raise RunError(problem)


def _new_weights(config: Config) -> Config:
    model = config.model.model_copy(update={"init_from": None})
    return config.model_copy(update={"model": model})


def _small(config: Config, folder: Path) -> Config:
    """The same run of a tiny model on short rows."""
    sizes = {"hidden_size": 16, "layers": 1, "heads": 2, "key_value_heads": None}
    model = config.model.model_copy(update={**sizes, "intermediate_size": 16, "init_from": None})
    data = config.data.model_copy(update={"folder": str(folder / SMALL / "data"), "sources": []})
    run_dir = str(folder / SMALL / "run")
    return config.model_copy(update={"model": model, "data": data, "run_dir": run_dir})


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except RaymdmError as error:
        sys.exit(str(error))
