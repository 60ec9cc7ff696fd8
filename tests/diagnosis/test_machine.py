"""What is found on a machine and in a cluster, and whether a worker fits it."""

import os
import sys
from pathlib import Path

import pytest

from raymdm.config import Config
from raymdm.config.loading import validate
from raymdm.diagnosis.fit import Room, find_room, sentence
from raymdm.diagnosis.machine import Cluster, Gpu, Node, find_cluster, host_memory, look_around
from raymdm.diagnosis.memory import Estimate, Forward
from raymdm.diagnosis.parameters import Parameters
from raymdm.diagnosis.parts import GIB, Parts

GPUS = [Gpu("large", 80 * GIB, "9.0", True), Gpu("small", 40 * GIB, "8.0", True)]
NODES = [Node(f"10.0.0.{n}", 8, 0, GIB) for n in range(2)]


def test_versions_are_told_and_so_is_what_is_missing() -> None:
    machine = look_around()
    assert machine.packages["torch"]
    assert set(machine.packages) >= {"raymdm", "ray", "deepspeed", "transformers", "peft"}
    assert sys.executable in machine.python
    assert 1 <= machine.cpus <= (os.cpu_count() or 1)


def test_a_package_that_is_not_installed_has_no_version() -> None:
    from raymdm.diagnosis import machine

    assert machine._version("no-such-package") is None


def test_a_containers_limit_counts_as_its_memory(tmp_path: Path) -> None:
    limit, none, missing = tmp_path / "limit", tmp_path / "none", tmp_path / "missing"
    limit.write_text("123456789\n")
    none.write_text("max\n")
    assert host_memory([none, missing, limit]) == 123456789
    assert host_memory([none, missing]) > 123456789


def test_no_cluster_is_started_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    import ray

    before = ray.is_initialized()
    for address in ("auto", "local"):
        found = find_cluster(address)
        assert found.nodes == []
        assert "start a local one" in str(found.note)
    assert ray.is_initialized() == before


def test_a_cluster_that_does_not_answer_is_a_finding() -> None:
    import ray

    if ray.is_initialized():
        pytest.skip("a cluster of this process answers for every address")
    found = find_cluster("127.0.0.1:1")
    assert found.nodes == []
    assert "cannot be reached" in str(found.note)


@pytest.mark.ray
def test_the_nodes_of_a_cluster_are_listed(ray_cluster: None) -> None:
    (node,) = find_cluster("127.0.0.1:6379").nodes
    assert (node.cpus, node.gpus) == (2, 0)
    assert node.memory > 0


def configured(**cluster: object) -> Config:
    return validate({"cluster": cluster, "training": {"batch_size": 8}})


def room(config: Config, gpus: list[Gpu], nodes: list[Node], given: float | None = None) -> Room:
    return find_room(config, given, gpus, 32 * GIB, Cluster(nodes))


def test_workers_share_the_memory_of_their_node() -> None:
    assert room(configured(workers=4), GPUS, []).bytes == 8 * GIB
    assert room(configured(workers=4), GPUS, NODES).bytes == 16 * GIB
    assert room(configured(workers=1), GPUS, NODES).bytes == 32 * GIB


def test_the_hosts_allocator_keeps_more_than_a_gpus() -> None:
    on_host = room(configured(), GPUS, [])
    on_gpu = room(configured(), GPUS, [], given=32 * GIB)
    assert on_host.judge(24 * GIB) == "tight"
    assert on_gpu.judge(24 * GIB) == "fits"


def test_a_worker_has_a_gpu_to_itself() -> None:
    """The smallest of them: nobody chooses which worker gets which."""
    on_gpu = configured(workers=4, gpus_per_worker=1)
    assert room(on_gpu, GPUS, []).bytes == 40 * GIB
    assert room(on_gpu, [], []).bytes is None
    assert room(on_gpu, GPUS, [], given=24 * GIB).bytes == 24 * GIB


@pytest.mark.parametrize(
    ("needed", "verdict", "words"),
    [
        (8.5, "fits", "It fits: a worker needs 8.5 GiB, and has 10.0 GiB"),
        (8.6, "tight", "It is tight: a worker needs 8.6 GiB"),
        (10.0, "tight", "It is tight"),
        (10.1, "too large", "It does not fit: a worker needs 10.1 GiB, and has 10.0 GiB"),
    ],
)
def test_some_room_is_left_for_what_is_not_estimated(
    needed: float, verdict: str, words: str
) -> None:
    ten = Room(10 * GIB, "here")
    parts = {"update": Parts(weights=needed * GIB)}
    found = Estimate(False, Parameters(1, 1, 1, 1, 1), Forward(1, 1, 1, 1, 1), parts, {})
    assert ten.judge(needed * GIB) == verdict
    assert sentence(found, ten).startswith(words)
    unknown = Room(None, "no GPU here")
    assert unknown.judge(needed * GIB) == "unknown"
    assert "unknown" in sentence(found, unknown)
