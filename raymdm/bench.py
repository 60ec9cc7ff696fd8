"""raymdm bench NAME : what raymdm itself costs, as ratios and differences within one run.

raymdm bench train
raymdm bench sweep
raymdm bench estimators
raymdm bench head
raymdm bench packing --set data.folder=data/gsm8k
raymdm bench step
raymdm bench decode
raymdm bench rl
raymdm bench loading
raymdm bench stream
raymdm bench checkpoint
raymdm bench faults
raymdm bench workers
raymdm bench verdict
"""

import importlib
import json
import tempfile
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from raymdm.benchmarks.request import Report, Request
from raymdm.command import (
    ConfigFiles,
    Overrides,
    Verbose,
    check_place,
    reports_errors,
    run_as_program,
)


class Name(str, Enum):
    """The measurements: each a module of `raymdm.benchmarks`, imported when it is asked for."""

    train = "train"
    sweep = "sweep"
    estimators = "estimators"
    head = "head"
    packing = "packing"
    step = "step"
    decode = "decode"
    rl = "rl"
    loading = "loading"
    stream = "stream"
    checkpoint = "checkpoint"
    faults = "faults"
    workers = "workers"
    verdict = "verdict"


@reports_errors
def main(
    name: Annotated[Name, typer.Argument(help="What to measure.", show_default=False)],
    config: ConfigFiles = None,
    set_: Overrides = None,
    blocks: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Timed blocks of each side; without it 25 (of two steps) for `train`, 5 for "
            "`head`, 12 for `packing`, 10 for `step`, 2 for `decode`, 3 (and as many rounds) for "
            "`rl`.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the figures here too.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Measure raymdm's own cost on this machine.

    `train`: tokens per second of the worker loop (one worker, in this process) against a bare
    PyTorch loop over the same batches and masks with the same model, in alternating blocks. The
    default is a model of 5M parameters on 16 rows of 128 random tokens; about two minutes on a
    core. No ratio is given unless both loops have the same losses.

    `sweep`: seconds per trial that are not training steps, on a sweep of six one-worker trials of a
    tiny model on sums; about two minutes on two cores. With `--set sweep.path=trainer` each trial
    goes through Ray Train.

    `estimators`: variance of the loss and of its gradient under every shipped estimator, relative
    to Standard, per step and per forward, and against the least that any density could reach. A
    tiny model is trained by Standard on generated tasks whose responses have about 5, 20 and
    80 tokens;
    `--set data.folder=…` takes prepared data of your own instead. About half an hour on two cores.

    `head`: time and peak memory of the output layer and its loss, forward and backward, where a
    quarter of the positions is masked: logits of all positions, or of the masked ones only, whole
    or in chunks. Width 512, LLaDA's vocabulary of 126,464; about five minutes on a core.

    `packing`: real tokens per second of forward and backward where rows are padded to the longest
    of the step, to the longest of each forward, grouped by length, or packed. Lengths are those of
    the prepared folder in `--set data.folder=…`, else drawn like GSM8K's; about five minutes.

    `step`: tokens per second of a whole training step and the share of the machine's best matrix
    product that it reaches (MFU), compiled or not, with and without activation checkpointing. On a
    GPU a LLaDA of 1.3B parameters in bf16; without one a tiny model, only to show that it runs.

    `decode`: batched decoding against its bare forwards and against one prompt after the other; a
    dual cache and a threshold against plain decoding, with the share of right responses of a tiny
    model that learns a text first; and LLaDA's own loop, written out. Models of 0.1M and 5M
    parameters, on a GPU one of 1.3B too; about six minutes on two cores.

    `rl`: rollouts in batches against their bare forwards; where the seconds of whole rounds of
    rollouts, rewards and updates go, and how many are not in the model's forwards and backwards;
    and the size of a trace. Models of 0.1M and 5M parameters; about four minutes on two cores.

    `loading`: memory that two workers hold while they load a checkpoint of 0.27B parameters under
    ZeRO 3, against one copy of it; another size by `--set model.…`; about a minute.

    `stream`: tokens per second that a stream of rows supplies to one worker under either
    `data.shuffle`, over those that a model of 5M parameters trains on one core; two minutes.

    `checkpoint`: what a checkpoint every 50 steps takes of the time of a run of 5M parameters; a
    minute.

    `faults`: real runs of two workers whose processes and nodes are killed, stopped or drained on
    the way: steps lost, difference of the losses, seconds to recover. About a minute and a half
    each on two cores; `--blocks 3` measures the first three.

    `workers`: the same training on one and two workers under every ZeRO stage, by the largest
    difference of its losses; and how much faster two workers are than one. About fifteen minutes.

    `verdict`: simulated coverage of every interval that `compare` shows, at 3 to 24 seeds, and the
    error and power of adaptive seeds with a look after every batch; no run is made. A few minutes.

    `head`, `packing`, `step`, `decode` and `rl` use a GPU where there is one. All of them but `rl`,
    and `verdict`, need neither Ray nor DeepSpeed.

    Example: raymdm bench train --set training.threads_per_worker=2 --json train.json
    """
    check_place("--json", json_file)
    measurement = importlib.import_module(f"raymdm.benchmarks.{name.value}")
    with tempfile.TemporaryDirectory(prefix="raymdm-bench-") as folder:
        request = Request(config, set_, Path(folder), blocks, verbose)
        report: Report = measurement.bench(request)
    for table in report.tables:
        Console().print(table)
    if json_file is not None:
        content = {"name": name.value, **report.figures}
        json_file.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    run_as_program(main)
