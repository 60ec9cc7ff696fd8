"""What `jobs/` gives to Kubernetes is known to its schemas, and safe."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from manifests import (
    FILES,
    JOB_FILES,
    RAY_FILES,
    ROOT,
    Tree,
    cluster_of,
    containers,
    environment,
    manifest,
    templates,
)

SCHEMAS = ROOT.parent / "shared" / "fixtures" / "kuberay"
KUBERNETES = "1.32"

every_file = pytest.mark.parametrize("name", FILES)
every_ray_file = pytest.mark.parametrize("name", RAY_FILES)
every_job = pytest.mark.parametrize("name", JOB_FILES)


def bytes_of(quantity: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", quantity).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1, "Mi": 2**20, "Gi": 2**30}[unit]


def pinned(package: str) -> str:
    pins = (ROOT / "constraints.txt").read_text()
    return re.search(rf"^{package}==(\S+)", pins, re.MULTILINE).group(1)  # type: ignore[union-attr]


# The schemas of the operator and of Kubernetes.


def strict(schema: Any) -> Any:
    """The schema of a custom resource with unknown fields refused, which Kubernetes would drop.

    Objects without any properties stay open: the metadata, which the resource's schema leaves out.
    """
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        made.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
    named = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if named and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


@cache
def schema_of(kind: str) -> Tree:
    path = SCHEMAS / f"ray.io_{kind.lower()}s.yaml"
    if not path.exists():
        pytest.skip("the schemas of the operator are not here")
    definition = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    versions = {version["name"]: version for version in definition["spec"]["versions"]}
    return strict(versions["v1"]["schema"]["openAPIV3Schema"])


def check_schema(document: Tree) -> None:
    jsonschema.Draft202012Validator(schema_of(document["kind"])).validate(document)


@every_ray_file
def test_the_operator_knows_every_field(name: str) -> None:
    check_schema(manifest(name))


@pytest.mark.parametrize(
    "path",
    [
        ("backoffLimits",),
        ("rayClusterSpec", "workerGroupSpecs", 0, "minReplica"),
        ("rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0, "images"),
        ("rayClusterSpec", "authOptions", "modus"),
    ],
)
def test_an_unknown_field_is_refused(path: tuple[str | int, ...]) -> None:
    document = manifest("rayjob-gpu.yaml")
    *above, last = path
    place: Any = document["spec"]
    for step in above:
        place = place[step]
    place[last] = 1
    with pytest.raises(jsonschema.ValidationError, match=f"'{last}' was unexpected"):
        check_schema(document)


def test_a_field_of_another_type_is_refused() -> None:
    document = manifest("rayjob-gpu.yaml")
    cluster_of(document)["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    with pytest.raises(jsonschema.ValidationError, match="0 is not of type 'string'"):
        check_schema(document)


def as_kubernetes_objects(document: Tree) -> Iterator[Tree]:
    """What Kubernetes itself makes of a file: the claim as it is, the templates as pods."""
    if document["apiVersion"] == "v1":
        yield document
        return
    yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": document["metadata"]}
    for template in templates(document):
        yield {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **template}


@every_file
def test_kubernetes_knows_every_field(name: str) -> None:
    for thing in as_kubernetes_objects(manifest(name)):
        kubernetes_validate.validate(thing, KUBERNETES, strict=True)


def test_an_unknown_field_of_a_pod_is_refused() -> None:
    document = manifest("raycluster.yaml")
    templates(document)[-1]["spec"]["restartPolice"] = "Never"
    *_, pod = as_kubernetes_objects(document)
    with pytest.raises(kubernetes_validate.ValidationError, match="restartPolice"):
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


# Our own rules.


@every_ray_file
def test_the_image_the_cluster_and_the_constraints_name_one_version_of_ray(name: str) -> None:
    document = manifest(name)
    assert cluster_of(document)["rayVersion"] == pinned("ray")
    assert {c["image"].rpartition(":")[2] for c in containers(document)} == {pinned("ray")}


@every_ray_file
def test_what_is_requested_is_the_limit(name: str) -> None:
    document = manifest(name)
    options = cluster_of(document).get("autoscalerOptions")
    for container in [*containers(document), *filter(None, [options])]:
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        assert {"cpu", "memory"} <= set(resources["limits"])


@every_ray_file
def test_no_pod_has_privileges(name: str) -> None:
    document = manifest(name)
    options = cluster_of(document).get("autoscalerOptions")
    for template in templates(document):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not any("hostPath" in volume for volume in pod.get("volumes", []))
    for container in [*containers(document), *filter(None, [options])]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }


@every_ray_file
def test_only_the_head_of_a_cluster_that_scales_itself_may_talk_to_kubernetes(name: str) -> None:
    document = manifest(name)
    head = cluster_of(document)["headGroupSpec"]["template"]
    scales = cluster_of(document).get("enableInTreeAutoscaling", False)
    for template in templates(document):
        allowed = template["spec"]["automountServiceAccountToken"]
        assert allowed == (scales and template is head)


@every_file
def test_secrets_are_named_and_never_written_down(name: str) -> None:
    document = manifest(name)
    assert document["kind"] != "Secret"
    if name in RAY_FILES:
        for container in containers(document):
            for variable, value in environment(container).items():
                assert not (value and re.search("KEY|TOKEN|SECRET|PASSWORD", variable)), variable


@every_ray_file
def test_the_cluster_wants_a_token(name: str) -> None:
    assert cluster_of(manifest(name))["authOptions"] == {"mode": "token"}


@every_ray_file
def test_pods_are_replaced_and_never_restarted(name: str) -> None:
    assert {t["spec"]["restartPolicy"] for t in templates(manifest(name))} == {"Never"}


@every_ray_file
def test_the_head_takes_no_work(name: str) -> None:
    assert cluster_of(manifest(name))["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


@every_ray_file
def test_every_group_says_how_few_and_how_many_it_may_have(name: str) -> None:
    for group in cluster_of(manifest(name))["workerGroupSpecs"]:
        assert 0 < group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@every_ray_file
def test_a_node_drains_before_kubernetes_kills_it(name: str) -> None:
    for template in templates(manifest(name)):
        for container in template["spec"]["containers"]:
            drain = environment(container).get("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S")
            if container["name"] != "ray-job-submitter":
                assert 0 < int(drain or 0) < template["spec"]["terminationGracePeriodSeconds"]


@every_ray_file
def test_a_stopped_job_has_more_time_than_rays_three_seconds(name: str) -> None:
    head = cluster_of(manifest(name))["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert int(environment(head)["RAY_JOB_STOP_WAIT_TIME_S"]) >= 30


@every_ray_file
def test_shared_memory_holds_the_object_store_and_fits_the_pod(name: str) -> None:
    cluster = cluster_of(manifest(name))
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        memory = bytes_of(pod["containers"][0]["resources"]["limits"]["memory"])
        volume = next(v for v in pod["volumes"] if v["name"] == "shm")["emptyDir"]
        assert {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
        assert volume["medium"] == "Memory"
        store = int(group["rayStartParams"]["object-store-memory"])
        assert store < bytes_of(volume["sizeLimit"]) < memory


@every_ray_file
def test_every_node_sees_the_storage_that_many_can_write(name: str) -> None:
    claim = manifest("storage.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    cluster = cluster_of(manifest(name))
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        claims = [v["persistentVolumeClaim"] for v in pod["volumes"] if v["name"] == "shared"]
        assert claims == [{"claimName": claim["metadata"]["name"]}]
        assert {"name": "shared", "mountPath": "/shared"} in pod["containers"][0]["volumeMounts"]


@every_ray_file
def test_pods_with_gpus_go_where_gpus_are(name: str) -> None:
    for group in cluster_of(manifest(name))["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        gpus = "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]
        assert gpus == ("nodeSelector" in pod) == ("tolerations" in pod)
        assert gpus == (group["groupName"] == "gpu")


@every_job
def test_a_job_ends_its_cluster_and_is_tried_again(name: str) -> None:
    spec = manifest(name)["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["backoffLimit"] > 0
    assert 0 < spec["preRunningDeadlineSeconds"] < spec["activeDeadlineSeconds"]
