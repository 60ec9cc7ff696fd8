"""raymdm doctor [-c FILE …] : what is installed and found here, and what memory a run would need.

raymdm doctor
raymdm doctor -c models/llada-8b --vocabulary 126464 --device-memory 80
raymdm doctor -c base -c models/5m --check
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from raymdm.command import (
    ConfigFiles,
    DumpConfig,
    Overrides,
    Verbose,
    check_place,
    reports_errors,
    run_as_program,
    settings,
)
from raymdm.config import Config
from raymdm.diagnosis import (
    check_estimate,
    estimate,
    find_cluster,
    find_room,
    list_alternatives,
    look_around,
    operations,
    read_lengths,
    read_shape,
)
from raymdm.diagnosis.alternatives import changed_section
from raymdm.diagnosis.fit import Room
from raymdm.diagnosis.machine import Cluster, Machine
from raymdm.diagnosis.memory import Estimate
from raymdm.diagnosis.parts import GIB, size
from raymdm.diagnosis.report import (
    alternative_table,
    check_table,
    print_estimate,
    print_machine,
)
from raymdm.errors import ConfigurationError
from raymdm.training.run_directory import write_json


@reports_errors
def main(
    config: ConfigFiles = None,
    set_: Overrides = None,
    vocabulary: Annotated[
        int | None,
        typer.Option(
            min=4,
            metavar="N",
            help="Estimate without prepared data: this many tokens in the vocabulary, rows of "
            "prepare.max_length. Default without data: prepare.vocabulary_size.",
        ),
    ] = None,
    device_memory: Annotated[
        float | None,
        typer.Option(
            min=0.001, metavar="GIB", help="Ask about workers with a GPU of so much memory each."
        ),
    ] = None,
    check_: Annotated[
        bool,
        typer.Option("--check", help="Run two steps here and set the estimate beside them."),
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything here too.")
    ] = None,
    dump_config: DumpConfig = False,
    verbose: Verbose = False,
) -> None:
    """Look at this machine; or say how much memory a configuration needs, and whether it fits.

    Without a configuration: versions, devices, Ray cluster, DeepSpeed's operations. With one: the
    memory of a worker (weights, gradients, optimiser, buffers, activations, logits) at its peak,
    for the longest rows with their whole response predicted, and what other settings would need.
    Not in the estimate: the process itself, and what an allocator keeps beyond its tensors.

    Example: raymdm doctor -c models/5m --set training.batch_size=64
    """
    check_place("--json", json_file)
    given = bool(config or set_ or vocabulary or device_memory or check_)
    checked = settings(config, set_, dump_config=dump_config)
    console = Console()
    machine = look_around()
    if not machine.gpus:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed would search, and warn
    cluster = find_cluster(checked.cluster.address, verbose=verbose)
    content: dict[str, Any] = {"machine": asdict(machine), "cluster": asdict(cluster)}
    if given:
        content |= _diagnose(console, checked, machine, cluster, vocabulary, device_memory, check_)
    else:
        content["operations"] = operations(machine.compiler)
        print_machine(console, machine, cluster, content["operations"])
    if json_file is not None:
        write_json(json_file, content)


def _diagnose(
    console: Console,
    config: Config,
    machine: Machine,
    cluster: Cluster,
    vocabulary: int | None,
    device_memory: float | None,
    checks: bool,
) -> dict[str, Any]:
    """Estimate, judge, compare, check; what `--json` writes of it."""
    lengths = read_lengths(config, vocabulary)
    shape = read_shape(config, lengths)
    asked = config
    if device_memory is not None:
        asked = changed_section(config, "cluster", {"gpus_per_worker": 1})
    found = estimate(asked, shape, lengths)
    given = None if device_memory is None else device_memory * GIB
    room = find_room(asked, given, machine.gpus, machine.memory, cluster)
    print_estimate(console, asked, lengths, found, room)
    others = list_alternatives(asked, shape, lengths)
    console.print()
    console.print(alternative_table(others, room))
    content: dict[str, Any] = {
        "parameters": asdict(found.parameters),
        "forward": asdict(found.forward),
        "rows": lengths.source,
        "device": {moment: asdict(parts) for moment, parts in found.device.items()},
        "host": {moment: asdict(parts) for moment, parts in found.host.items()},
        "needed": found.device_bytes,
        "room": room.bytes,
        "verdict": room.judge(found.device_bytes),
        "alternatives": {
            other.name: {
                "configured": other.configured.device_bytes,
                "recomputed": other.recomputed.device_bytes,
                "least": other.least.device_bytes,
                "host": other.least.host_bytes,
            }
            for other in others
        },
    }
    if checks:
        _refuse_what_cannot_run(config, machine, found)
        measured = check_estimate(config, shape, lengths)
        console.print()
        console.print(check_table(measured))
        content["check"] = {
            "estimated": measured.estimate.device_bytes,
            "measured": measured.measured,
            "process": measured.process,
        }
    return content


def _refuse_what_cannot_run(config: Config, machine: Machine, found: Estimate) -> None:
    room: Room = find_room(
        changed_section(config, "cluster", {"workers": 1}),
        None,
        machine.gpus,
        machine.memory,
        Cluster([]),
    )
    if room.judge(found.device_bytes) in ("too large", "unknown"):
        raise ConfigurationError(
            f"doctor --check runs one worker here, which needs about {size(found.device_bytes)}: "
            f"{room.what}; choose a smaller model, batch or max_length"
        )


if __name__ == "__main__":
    run_as_program(main)
