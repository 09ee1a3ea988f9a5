"""The Kubernetes manifests carry what a run needs to start whole, end by itself and hold no secret."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

KUBERAY = Path(__file__).parents[3] / "infra" / "kuberay"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
RUN_LABEL = {"poma3d/run": "pretrain"}
API_VOLUME = "kubernetes-api"
RAY_VERSION = "2.60.0"


def load(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((KUBERAY / name).read_text()))


def clusters() -> dict[str, dict[str, Any]]:
    return {
        "rayjob": load("base/rayjob.yaml")["spec"]["rayClusterSpec"],
        "raycluster": load("raycluster.yaml")["spec"],
    }


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pods() -> Iterator[dict[str, Any]]:
    """Every pod template, the submitter's too."""
    for cluster in clusters().values():
        yield from (group["template"] for group in groups(cluster))
    yield load("base/rayjob.yaml")["spec"]["submitterPodTemplate"]


def containers() -> Iterator[dict[str, Any]]:
    for pod in pods():
        yield from pod["spec"]["containers"]


def test_every_manifest_parses() -> None:
    files = sorted(KUBERAY.rglob("*.yaml"))
    assert len(files) == 10
    for path in files:
        for document in yaml.safe_load_all(path.read_text()):
            assert document["apiVersion"], path
            assert document["kind"], path


def test_rayjob_has_a_deadline_retries_and_a_tear_down() -> None:
    job = load("base/rayjob.yaml")
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["shutdownAfterJobFinishes"] is True
    assert 0 <= spec["ttlSecondsAfterFinished"] <= 3600
    assert 1 <= spec["backoffLimit"] <= 10
    assert spec["entrypoint"].startswith("poma pretrain ")


def test_gang_has_a_fixed_size_and_a_queue() -> None:
    job = load("base/rayjob.yaml")
    cluster = job["spec"]["rayClusterSpec"]
    assert job["metadata"]["labels"][QUEUE_LABEL] == "poma3d"
    assert not cluster.get("enableInTreeAutoscaling"), "a gang that grows is none"
    for group in cluster["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] > 0
    queues = list(yaml.safe_load_all((KUBERAY / "queue.yaml").read_text()))
    names = {q["kind"]: q["metadata"]["name"] for q in queues}
    assert names["LocalQueue"] == job["metadata"]["labels"][QUEUE_LABEL]
    assert queues[2]["spec"]["clusterQueue"] == names["ClusterQueue"]
    assert {q["apiVersion"] for q in queues} == {"kueue.x-k8s.io/v1beta2"}, "0.20 serves no older one"


def test_the_workers_asked_for_are_the_gpus_that_are_there() -> None:
    job = load("base/rayjob.yaml")["spec"]
    train = job["rayClusterSpec"]["workerGroupSpecs"][0]
    gpus = int(train["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    assert f"fit.workers={gpus * train['replicas']} " in job["entrypoint"]
    assert train["rayStartParams"]["num-cpus"] == str(gpus), "CPUs beyond the workers' would take readers"


def test_the_queue_has_room_for_the_run() -> None:
    cluster = load("base/rayjob.yaml")["spec"]["rayClusterSpec"]
    needed = {"cpu": 4, "nvidia.com/gpu": 0}
    for group in cluster["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        for name in needed:
            needed[name] += int(limits.get(name, 0)) * group["replicas"]
    queue = list(yaml.safe_load_all((KUBERAY / "queue.yaml").read_text()))[1]
    flavor = queue["spec"]["resourceGroups"][0]["flavors"][0]
    quota = {r["name"]: r["nominalQuota"] for r in flavor["resources"]}
    assert all(needed[name] <= quota[name] for name in needed)


def test_the_token_is_demanded_everywhere_and_comes_from_a_secret() -> None:
    for container in containers():
        env = {item["name"]: item for item in container["env"]}
        assert env["RAY_AUTH_MODE"]["value"] == "token"
        assert env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "poma3d-ray"
        for name, item in env.items():
            if any(word in name for word in ("KEY", "TOKEN", "SECRET", "PASSWORD")):
                assert "value" not in item, f"{name} is written down"
                assert "secretKeyRef" in item["valueFrom"]


def test_pods_do_not_run_as_root_and_have_limits() -> None:
    for pod in pods():
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert "hostNetwork" not in pod["spec"]
    for container in containers():
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])


def test_both_manifests_have_the_same_pods() -> None:
    job, standing = clusters().values()
    assert job["rayVersion"] == standing["rayVersion"] == RAY_VERSION
    # The autoscaler has it, and the job has no autoscaler.
    (mine,) = [v for v in groups(standing)[0]["template"]["spec"]["volumes"] if v["name"] == API_VOLUME]
    groups(standing)[0]["template"]["spec"]["volumes"].remove(mine)
    for a, b in zip(groups(job), groups(standing), strict=True):
        assert a["template"] == b["template"]
        assert a["rayStartParams"] == b["rayStartParams"]


def test_the_operator_shows_the_head_the_token() -> None:
    """Without it Ray answers 401, and KubeRay 1.7 fails the run after 300 s."""
    for cluster in clusters().values():
        assert cluster["authOptions"] == {"mode": "token", "secretName": "poma3d-ray"}


def test_the_autoscaler_may_ask_ray_and_kubernetes_and_nobody_else_may() -> None:
    cluster = load("raycluster.yaml")["spec"]
    options, head = cluster["autoscalerOptions"], cluster["headGroupSpec"]["template"]["spec"]
    env = {item["name"]: item for item in options["env"]}
    assert env["RAY_AUTH_MODE"]["value"] == "token"
    assert env["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "poma3d-ray", "key": "auth_token"}
    (mount,) = options["volumeMounts"]
    assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    (volume,) = [volume for volume in head["volumes"] if volume["name"] == mount["name"]]
    kinds = [next(iter(source)) for source in volume["projected"]["sources"]]
    assert kinds == ["serviceAccountToken", "configMap", "downwardAPI"]
    mounted = [one["name"] for container in head["containers"] for one in container["volumeMounts"]]
    assert API_VOLUME not in mounted


def test_groups_have_their_ray_labels_where_the_operator_takes_them() -> None:
    for cluster in clusters().values():
        assert [group["labels"] for group in cluster["workerGroupSpecs"]] == [
            {"poma-role": "train"}, {"poma-role": "data"},
        ]  # fmt: skip
        assert all("labels" not in group["rayStartParams"] for group in groups(cluster))


def test_lost_clusters_are_replaced_as_often_as_the_docs_say() -> None:
    assert load("base/rayjob.yaml")["spec"]["backoffLimit"] == 2, "three clusters at most"


def test_ray_start_knows_every_parameter() -> None:
    from ray.scripts.scripts import start

    known = {name for parameter in start.params for name in parameter.opts}
    for cluster in clusters().values():
        for group in groups(cluster):
            assert {f"--{name}" for name in group["rayStartParams"]} <= known


def test_raycluster_scales_to_zero_workers() -> None:
    cluster = clusters()["raycluster"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["idleTimeoutSeconds"] <= 3600
    assert all(group["minReplicas"] == 0 for group in cluster["workerGroupSpecs"])


def test_the_disruption_budget_counts_the_pods_of_the_run() -> None:
    budget = load("base/disruption-budget.yaml")["spec"]
    cluster = load("base/rayjob.yaml")["spec"]["rayClusterSpec"]
    assert budget["minAvailable"] == 1 + sum(group["replicas"] for group in cluster["workerGroupSpecs"])
    assert budget["selector"]["matchLabels"] == RUN_LABEL
    assert all(group["template"]["metadata"]["labels"] == RUN_LABEL for group in groups(cluster))


def test_network_policy_admits_only_the_run_and_its_submitter() -> None:
    policy = load("base/network-policy.yaml")["spec"]
    assert policy["podSelector"]["matchLabels"] == RUN_LABEL
    assert policy["policyTypes"] == ["Ingress"]
    assert not [rule for rule in policy["ingress"] if not rule.get("from")], "a rule for everybody"
    submitter = load("base/rayjob.yaml")["spec"]["submitterPodTemplate"]["metadata"]["labels"]
    dashboard = next(rule for rule in policy["ingress"] if rule.get("ports") == [{"port": 8265}])
    assert {"podSelector": {"matchLabels": submitter}} in dashboard["from"]
    kinds = {yaml.safe_load(p.read_text())["kind"] for p in (KUBERAY / "base").glob("*.yaml")}
    assert "Service" not in kinds, "no port beyond the cluster"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("variant", ["base", "volcano", "history"])
def test_kustomize_renders(variant: str) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUBERAY / variant)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    documents = {d["kind"]: d for d in yaml.safe_load_all(done.stdout)}
    of_namespace = [d for d in documents.values() if not d["kind"].startswith("ClusterRole")]
    assert all(d["metadata"]["namespace"] == "poma3d" for d in of_namespace)
    if variant == "history":
        assert "Deployment" in documents
        return
    labels = documents["RayJob"]["metadata"]["labels"]
    if variant == "base":
        assert labels == {QUEUE_LABEL: "poma3d"}
    else:
        assert labels == {"ray.io/scheduler-name": "volcano", "volcano.sh/queue-name": "poma3d"}
