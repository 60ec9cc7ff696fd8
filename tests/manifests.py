"""Reading the manifests of `jobs/`, for the tests of what they say and of what they run."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
JOBS = ROOT / "jobs"
Tree = dict[str, Any]


def manifest(name: str) -> Tree:
    return yaml.safe_load((JOBS / name).read_text())


FILES = sorted(path.name for path in JOBS.glob("*.yaml"))
RAY_FILES = [name for name in FILES if manifest(name)["apiVersion"] == "ray.io/v1"]
JOB_FILES = [name for name in RAY_FILES if manifest(name)["kind"] == "RayJob"]


def cluster_of(document: Tree) -> Tree:
    """What is said of the Ray cluster, in a cluster's file and in a job's."""
    return document["spec"].get("rayClusterSpec", document["spec"])


def templates(document: Tree) -> list[Tree]:
    """Every pod template: the submitter's, the head's, those of the workers."""
    cluster = cluster_of(document)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    submitter = document["spec"].get("submitterPodTemplate")
    return [*filter(None, [submitter]), *(group["template"] for group in groups)]


def containers(document: Tree) -> list[Tree]:
    return [c for template in templates(document) for c in template["spec"]["containers"]]


def environment(container: Tree) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}
