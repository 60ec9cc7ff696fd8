"""What is installed and what there is to compute with: here, and in a Ray cluster."""

import contextlib
import importlib.metadata
import io
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from raymdm.cluster import start_ray
from raymdm.errors import ClusterError
from raymdm.training.engine import import_deepspeed

_PACKAGES = (
    *("raymdm", "torch", "ray", "deepspeed", "transformers", "tokenizers", "safetensors"),
    *("huggingface-hub", "peft", "datasets", "numpy", "scipy", "pandas", "pyarrow", "wandb"),
)
_NO_OPERATIONS = ("not_implemented",)
# Where the limit of a container is written, by version of control groups.
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclass(frozen=True)
class Gpu:
    """One CUDA device; memory in bytes."""

    name: str
    memory: int
    capability: str
    bf16: bool


@dataclass(frozen=True)
class Node:
    """One node of a Ray cluster; memory in bytes."""

    address: str
    cpus: float
    gpus: float
    memory: float


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, or why there is none.

    Attributes:
        nodes: those that are alive.
        note: one sentence where there are none.
    """

    nodes: list[Node]
    note: str | None = None


@dataclass(frozen=True)
class Machine:
    """One machine; memory in bytes.

    Attributes:
        python: its version and where it is.
        platform: the operating system.
        packages: versions of what raymdm uses, None for what is missing.
        cpus: that this process may use.
        memory: of the host, or the limit of the container.
        gpus: CUDA devices.
        compiler: a C++ compiler's first line about itself, None without one.
    """

    python: str
    platform: str
    packages: dict[str, str | None]
    cpus: int
    memory: int
    gpus: list[Gpu]
    compiler: str | None


def look_around() -> Machine:
    """The machine that we are on, as it is now."""
    return Machine(
        python=f"{platform.python_version()} ({sys.executable})",
        platform=platform.platform(),
        packages={name: _version(name) for name in _PACKAGES},
        cpus=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        memory=host_memory(),
        gpus=gpus(),
        compiler=_compiler(),
    )


def gpus() -> list[Gpu]:
    """The CUDA devices of this machine."""
    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.cuda.get_device_properties(index)
        capability = f"{device.major}.{device.minor}"
        # Ampere (8.0) was the first to compute in bf16.
        found.append(Gpu(device.name, device.total_memory, capability, device.major >= 8))
    return found


def host_memory(limits: Sequence[Path] = _LIMITS) -> int:
    """Bytes of memory of this machine, or of its container, whose `limits` files say."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in limits:
        with contextlib.suppress(OSError, ValueError):  # no such file; "max"
            memory = min(memory, int(path.read_text()))
    return memory


def find_cluster(address: str, *, verbose: bool = False) -> Cluster:
    """The cluster that `cluster.address` (or RAY_ADDRESS) names; nothing is started."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "local")
    if address == "local":
        return Cluster([], "none is named by RAY_ADDRESS; the verbs start a local one")
    import ray

    try:
        with start_ray(address, verbose=verbose):
            nodes = [node for node in ray.nodes() if node["Alive"]]
    except ClusterError as error:
        return Cluster([], str(error))
    return Cluster([_node(node["NodeManagerAddress"], node["Resources"]) for node in nodes])


def operations(compiler: str | None) -> dict[str, str]:
    """DeepSpeed's own operations: `installed`, `can be compiled` or `cannot be compiled`."""
    import_deepspeed()
    from deepspeed.git_version_info import installed_ops
    from deepspeed.ops.op_builder.all_ops import ALL_OPS
    from deepspeed.ops.op_builder.builder import probe_is_compatible
    from torch.utils.cpp_extension import is_ninja_available

    builds = compiler is not None and is_ninja_available()
    states = {}
    for name, builder in sorted(ALL_OPS.items()):
        if name.endswith(_NO_OPERATIONS):
            continue
        with contextlib.redirect_stdout(io.StringIO()):  # its warnings
            can = builds and probe_is_compatible(builder, False)
        built = installed_ops.get(name, False)
        states[name] = "installed" if built else f"can{'' if can else 'not'} be compiled"
    return states


def _node(address: str, resources: dict[str, float]) -> Node:
    return Node(
        address, resources.get("CPU", 0), resources.get("GPU", 0), resources.get("memory", 0)
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _compiler() -> str | None:
    """Of what PyTorch would call."""
    path = shutil.which(os.environ.get("CXX", "g++"))
    if path is None:
        return None
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or [path])[0]
