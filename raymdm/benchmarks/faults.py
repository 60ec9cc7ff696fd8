"""What a fault costs: real runs of `raymdm train` whose processes and nodes are killed on the way.

Every fault gets its own Ray cluster and its own run of one and the same configuration, is injected
once a checkpoint is whole, and is measured against the run that nothing happened to.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from ray.cluster_utils import Cluster
from rich.table import Table

from raymdm.benchmarks.request import Report, Request
from raymdm.benchmarks.rows import write_random_rows
from raymdm.config import Config, dump_yaml
from raymdm.errors import RunError
from raymdm.training.checkpoint import open_store, steps_done
from raymdm.training.run_directory import RunDirectory

AGAIN = "starting again"
"""What a run says when it goes on by itself."""

_PATIENCE = 240.0
_HEAD_CPUS, _NODE_CPUS = 3, 2


@dataclass(frozen=True)
class FaultFigures:
    """What one fault did.

    Attributes:
        fault: which.
        step: the last step that the run said was done before it (it does so twice a second).
        checkpoint: the newest whole checkpoint then; training went on from here or later.
        lost: steps that were done again.
        difference: largest relative difference of any step's loss to the undisturbed run's.
        seconds: from the fault until a step beyond `step` was done; of it the time that Python
            and Ray need to start again is most.
        commands: how often `raymdm train` had to be called.
    """

    fault: str
    step: int
    checkpoint: int
    lost: int
    difference: float
    seconds: float
    commands: int


class Run:
    """A `raymdm train` in a process of its own, on a cluster of its own."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.run = RunDirectory(config.run_dir)
        self.store = open_store(config, self.run)
        self.cluster: Cluster | None = None
        self.commands = 0
        self._log = folder / "log.txt"

    def start_nodes(self) -> None:
        """A head with room for one worker and the reading, and a node with room for the other."""
        self.cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": _HEAD_CPUS, "dashboard_port": 0}
        )
        self.add_node()

    def add_node(self) -> None:
        """One more node beside the head."""
        assert self.cluster is not None
        self.node = self.cluster.add_node(num_cpus=_NODE_CPUS)

    def start(self) -> None:
        """Call `raymdm train --resume`."""
        config = self.folder / "config.yaml"
        config.write_text(dump_yaml(self.config))
        address = "local" if self.cluster is None else self.cluster.address
        command = [sys.executable, "-m", "raymdm.train", "-c", str(config), "--resume"]
        command += ["--set", f"cluster.address={address}"]
        self.commands += 1
        with open(self._log, "ab") as log:
            # A session of its own: what a killed driver leaves behind can then be found and ended.
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env=_environment()
            )

    def step(self) -> int:
        """The step that the run says it has done."""
        return int(self.run.status().get("step") or 0)

    def checkpoint(self) -> int:
        """Steps of the newest whole checkpoint."""
        return steps_done(self.store)

    def wait_until(self, reached: Callable[[], bool], what: str, pause: float = 0.05) -> None:
        """Raises RunError, with the end of the log, if it takes too long or the run ends first."""
        deadline = time.monotonic() + _PATIENCE
        while not reached():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RunError(f"{self.folder}: {what} was not reached\n{self.log()[-2000:]}")
            time.sleep(pause)

    def wait(self) -> int:
        """Exit status of `raymdm train`."""
        return self.process.wait(_PATIENCE)

    def log(self) -> str:
        """What it has written so far, stdout and stderr."""
        return self._log.read_text()

    def kill(self, name: str, number: int) -> None:
        """Send a signal to one Ray process of the run by the beginning of its title."""
        of_ours = [psutil.Process(self.process.pid)]
        if self.cluster is not None:
            of_ours.append(psutil.Process())
        found = [
            child
            for parent in of_ours
            for child in parent.children(recursive=True)
            if " ".join(_command_line(child)).startswith(f"ray::{name}")
        ]
        if not found:
            raise RunError(f"{self.folder}: no process ray::{name} to send a signal to")
        found[0].send_signal(number)

    def end(self) -> None:
        """End what is left of it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.cluster is not None:
            self.cluster.shutdown()


def _kill_worker(run: Run) -> None:
    run.kill("RayTrainWorker", signal.SIGKILL)


def _kill_worker_saving(run: Run) -> None:
    def half_a_checkpoint() -> bool:
        return run.store.names()[-1:] != run.store.whole()[-1:]

    run.wait_until(half_a_checkpoint, "half a checkpoint", pause=0.0)
    _kill_worker(run)


def _kill_controller(run: Run) -> None:
    run.kill("TrainController", signal.SIGKILL)


def _kill_driver(run: Run) -> None:
    run.process.kill()
    run.wait()


def _terminate_driver(run: Run) -> None:
    run.process.terminate()
    run.wait()


def _terminate_worker(run: Run) -> None:
    run.kill("RayTrainWorker", signal.SIGTERM)
    run.wait()


def _interrupt(run: Run) -> None:
    run.process.send_signal(signal.SIGINT)
    run.wait()


def _lose_node(run: Run) -> None:
    assert run.cluster is not None
    run.cluster.remove_node(run.node, allow_graceful=False)


def _replace_node(run: Run) -> None:
    _lose_node(run)
    run.add_node()


def _drain_node(run: Run) -> None:
    assert run.cluster is not None
    subprocess.run(
        [
            *(Path(sys.executable).parent / "ray", "drain-node"),
            *("--address", run.cluster.address, "--node-id", run.node.node_id),
            *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "a test"),
            *("--deadline-remaining-seconds", "120"),
        ],
        check=True,
        capture_output=True,
        env=_environment(),
    )
    run.wait()
    run.add_node()


@dataclass(frozen=True)
class Fault:
    """How it is done, and to which cluster.

    Attributes:
        name: what is said of it.
        inject: does it.
        nodes: the cluster has a second node, which has one of the two workers; `data`: has the
            reading, and so the blocks of data, and no worker.
        elastic: the run may go on with one worker.
    """

    name: str
    inject: Callable[[Run], None]
    nodes: bool = False
    data: bool = False
    elastic: bool = False


FAULTS = {
    "worker": Fault("kill -9 of a worker", _kill_worker),
    "saving": Fault("kill -9 of a worker that writes a checkpoint", _kill_worker_saving),
    "controller": Fault("kill -9 of Ray Train's controller", _kill_controller),
    "driver": Fault("kill -9 of the driver", _kill_driver),
    "interrupt": Fault("Ctrl-C", _interrupt),
    "terminate": Fault("SIGTERM to the driver", _terminate_driver),
    "terminate-worker": Fault("SIGTERM to a worker", _terminate_worker),
    "node": Fault("node lost, another one joins", _replace_node, nodes=True),
    "elastic": Fault("node lost, one worker goes on", _lose_node, nodes=True, elastic=True),
    "block": Fault("node with the blocks of data lost", _replace_node, nodes=True, data=True),
    "drain": Fault("notice that a node goes, another one joins", _drain_node, nodes=True),
}


def bench(request: Request) -> Report:
    """Figures of every fault, or of as many of the first as `--blocks` says."""
    names = list(FAULTS)[: request.blocks]
    figures = measure_faults(request.folder, names, zero_stage=2)
    return Report([table(figures)], {"faults": [asdict(each) for each in figures]})


def table(figures: list[FaultFigures]) -> Table:
    """One row a fault."""
    made = Table(title="2 workers, ZeRO 2, a checkpoint every 10 steps")
    for name in ("fault", "at step", "steps lost", "loss difference", "seconds to recover"):
        made.add_column(name, justify="left" if name == "fault" else "right")
    for each in figures:
        again = "" if each.commands == 1 else " (--resume)"
        made.add_row(
            each.fault + again,
            str(each.step),
            str(each.lost),
            f"{each.difference:.1e}",
            f"{each.seconds:.0f}",
        )
    return made


def measure_faults(folder: Path, names: list[str], zero_stage: int) -> list[FaultFigures]:
    """Inject these faults, each into its own run.

    Args:
        folder: an empty folder.
        names: keys of `FAULTS`.
        zero_stage: of the runs.
    """
    config = fault_config(folder, zero_stage)
    whole = Run(_in(config, folder / "whole"), folder / "whole")
    whole.start()
    if whole.wait():
        raise RunError(f"the run without a fault failed\n{whole.log()[-2000:]}")
    reference = pd.read_parquet(whole.run.metrics)["loss"].to_numpy()
    return [measure_fault(config, folder / name, FAULTS[name], reference) for name in names]


def measure_fault(
    config: Config, folder: Path, fault: Fault, reference: np.ndarray
) -> FaultFigures:
    """Inject one fault into a run of this configuration.

    Args:
        config: from `fault_config`.
        folder: a new one for the run.
        fault: which.
        reference: float64[steps], losses of the run that nothing happened to.

    Raises:
        RunError: the run did not get over it.
    """
    run = Run(_in(config, folder, fault), folder)
    try:
        if fault.nodes:
            run.start_nodes()
        run.start()
        run.wait_until(lambda: run.checkpoint() > 0, "a checkpoint")
        started = time.monotonic()
        fault.inject(run)
        if run.process.poll() is not None:
            step, checkpoint = run.step(), run.checkpoint()
            run.start()
            # Workers of a killed driver go on for a moment; the new one begins at no step.
            run.wait_until(lambda: run.step() == 0, "the new start")
        else:
            if not fault.data:
                run.wait_until(lambda: AGAIN in run.log(), AGAIN)
            step, checkpoint = run.step(), run.checkpoint()
        run.wait_until(lambda: run.step() > step, f"step {step + 1}")
        seconds = time.monotonic() - started
        if run.wait():
            raise RunError(f"{folder}: the run failed after the fault\n{run.log()[-2000:]}")
    finally:
        run.end()
    restarted = run.commands > 1 or AGAIN in run.log()
    losses = pd.read_parquet(run.run.metrics)["loss"].to_numpy()
    if len(losses) != len(reference):
        raise RunError(f"{folder}: {len(losses)} steps instead of {len(reference)}")
    return FaultFigures(
        fault=fault.name,
        step=step,
        checkpoint=checkpoint,
        lost=max(0, step - checkpoint) if restarted else 0,
        difference=float(np.abs(losses / reference - 1).max()),
        seconds=seconds,
        commands=run.commands,
    )


def fault_config(folder: Path, zero_stage: int, steps: int = 80) -> Config:
    """A run of two workers long enough to be disturbed: half a minute, most of it starting."""
    rows, length = 512, 32
    data = write_random_rows(
        folder / "data",
        lengths=np.full(rows, length),
        prompt_lengths=np.full(rows, length // 2),
        vocabulary_size=64,
    )
    return Config.model_validate(
        {
            "data": {"folder": str(data), "rows_per_block": 16},
            "model": {"hidden_size": 32, "layers": 2, "heads": 2},
            "training": {"steps": steps, "batch_size": 16, "checkpoint_every": 10},
            "cluster": {"workers": 2},
            "deepspeed": {"zero_stage": zero_stage},
            "estimator": {"control": {"kind": "ema"}},
        }
    )


def _in(config: Config, folder: Path, fault: Fault | None = None) -> Config:
    folder.mkdir(parents=True)
    cluster: dict[str, object] = {}
    if fault is not None and fault.nodes:
        # One worker fits on each node; or both on the head, where then only the other can read.
        cluster["cpus_per_worker"] = _HEAD_CPUS / 2 if fault.data else float(_NODE_CPUS)
    if fault is not None and fault.elastic:
        cluster["min_workers"] = 1
    return config.model_copy(
        update={
            "run_dir": str(folder / "run"),
            "cluster": config.cluster.model_copy(update=cluster),
        }
    )


def _environment() -> dict[str, str]:
    # A worker group that cannot be placed after a lost node is tried again soon.
    return {**os.environ, "OMP_NUM_THREADS": "1", "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20"}


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
