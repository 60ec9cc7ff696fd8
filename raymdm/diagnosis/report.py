"""What `raymdm doctor` prints."""

from rich.console import Console
from rich.table import Table

from raymdm.config import Config
from raymdm.diagnosis.alternatives import CHUNK, Alternative
from raymdm.diagnosis.checking import STEPS, Check
from raymdm.diagnosis.fit import Room, sentence
from raymdm.diagnosis.lengths import Lengths
from raymdm.diagnosis.machine import Cluster, Machine
from raymdm.diagnosis.memory import Estimate
from raymdm.diagnosis.parts import NAMES, size

_MOMENTS = {
    "start": "while the model is read",
    "probe": "while the density of t is probed",
    "logits": "at the gradient of the logits",
    "backward": "in the backward pass",
    "reduction": "while gradients are reduced",
    "update": "in the optimiser's update",
    "training": "while training",
    "export": "on the first worker, when the model is written",
}
_MARKS = {"fits": "[green]fits[/green]", "tight": "[yellow]tight[/yellow]", "too large": "–"}


def print_machine(
    console: Console, machine: Machine, cluster: Cluster, operations: dict[str, str]
) -> None:
    """Versions, devices, cluster and compilers."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, version in machine.packages.items():
        table.add_row(name, version or "[yellow]not installed[/yellow]")
    table.add_row("Python", machine.python)
    table.add_row("system", machine.platform)
    table.add_row("CPUs", f"{machine.cpus}, memory {size(machine.memory)}")
    for gpu in machine.gpus:
        bf16 = "bf16" if gpu.bf16 else "no bf16"
        table.add_row("GPU", f"{gpu.name}, {size(gpu.memory)}, capability {gpu.capability}, {bf16}")
    if not machine.gpus:
        table.add_row("GPUs", "none")
    table.add_row("Ray cluster", cluster.note or f"{len(cluster.nodes)} nodes")
    for node in cluster.nodes:
        row = f"{node.cpus:g} CPUs, {node.gpus:g} GPUs, {size(node.memory)} for tasks"
        table.add_row(f"  {node.address}", row)
    compiler = machine.compiler or "none"
    table.add_row("C++ compiler", f"{compiler} (for training.compile on CPUs)")
    table.add_row("DeepSpeed ops", "raymdm needs none of them")
    for name, state in operations.items():
        table.add_row(f"  {name}", state)
    console.print(table)


def print_estimate(
    console: Console, config: Config, lengths: Lengths, found: Estimate, room: Room
) -> None:
    """Where a worker's memory goes, moment by moment, and whether it fits."""
    parameters, forward = found.parameters, found.forward
    console.print(
        f"{parameters.total:,} parameters, {parameters.trained:,} trained; "
        f"{settings_line(config)}\n"
        f"Largest forward: {forward.rows} × {forward.views} × {forward.length} tokens (rows × "
        f"views × length), of which {forward.predicted:,} are predicted, the whole responses; "
        f"{forward.count} a step. Rows and vocabulary: {lengths.source}.",
        highlight=False,
    )
    console.print()
    console.print(moment_table(found))
    if found.host:
        moment = max(found.host, key=lambda name: found.host[name].total)
        console.print(
            f"Beside it {size(found.host_bytes)} of the host's memory, most {_MOMENTS[moment]}.",
            highlight=False,
        )
    console.print(f"[bold]{sentence(found, room)}[/bold]", highlight=False)


def settings_line(config: Config) -> str:
    """What decides the memory, in the words of the configuration."""
    deepspeed, training, lora = config.deepspeed, config.training, config.model.lora
    words = [training.precision, f"ZeRO {deepspeed.zero_stage}"]
    words += [f"{deepspeed.offload} offloaded"] * (deepspeed.offload != "none")
    words += [f"LoRA rank {lora.rank}"] * (lora.rank is not None)
    words += ["activation checkpointing"] * training.activation_checkpointing
    words += [f"head_chunk {training.head_chunk}"] * (training.head_chunk is not None)
    workers = config.cluster.workers
    return f"{', '.join(words)}, {workers} worker{'s' * (workers > 1)}"


def moment_table(found: Estimate) -> Table:
    """Bytes by part and moment; the moment that needs most stands out."""
    device = "GPU" if found.gpu else "host"
    table = Table(title=f"Memory of one worker ({device}), most {_MOMENTS[found.peak]}")
    table.add_column("")
    for moment in found.device:
        table.add_column(moment, justify="right", style="bold" if moment == found.peak else None)
    for name in NAMES:
        values = [getattr(parts, name) for parts in found.device.values()]
        if any(values):
            table.add_row(name, *(size(value) if value else "" for value in values))
    table.add_section()
    table.add_row("total", *(size(parts.total) for parts in found.device.values()))
    return table


def alternative_table(found: list[Alternative], room: Room) -> Table:
    """What would fit."""
    table = Table(
        title="The same run otherwise: memory of one worker",
        caption="recomputed: with training.activation_checkpointing; least: with it, "
        f"training.micro_batch_size 1 and training.head_chunk {CHUNK}",
    )
    table.add_column("")
    for title in ("as configured", "recomputed", "least"):
        table.add_column(title, justify="right")
    on_gpu = found[0].configured.gpu
    if on_gpu:
        table.add_column("host", justify="right")
    for row in found:
        cells = [_judged(e, room) for e in (row.configured, row.recomputed, row.least)]
        table.add_row(row.name, *cells, *([size(row.least.host_bytes)] if on_gpu else []))
    return table


def check_table(found: Check) -> Table:
    """Estimated against measured."""
    table = Table(title=f"{STEPS} steps of one worker, on random rows of the longest length")
    for name in ("estimated", "measured", "ratio"):
        table.add_column(name, justify="right")
    table.add_row(size(found.estimate.device_bytes), size(found.measured), f"{found.ratio:.2f}")
    table.caption = f"beyond {size(found.process)} that the process held before"
    return table


def _judged(found: Estimate, room: Room) -> str:
    mark = _MARKS.get(room.judge(found.device_bytes), "")
    return f"{size(found.device_bytes)} {mark}".rstrip()
