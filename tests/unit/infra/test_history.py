"""The History Server: what the run's collectors write it reads, nobody reaches it by network, no secret is
written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

HISTORY = Path(__file__).parents[3] / "infra" / "kuberay" / "history"
TOKEN = {"secretKeyRef": {"name": "poma3d-ray", "key": "auth_token"}}


def server() -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all((HISTORY / "server.yaml").read_text())}


def deployed() -> dict[str, dict[str, Any]]:
    containers = server()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one for one in containers}


def collector() -> tuple[dict[str, Any], dict[str, Any]]:
    """What joins Ray's container, and the collector's own."""
    found = yaml.safe_load((HISTORY / "collector.yaml").read_text())
    assert (found["apiVersion"], found["kind"]) == ("v1", "PodTemplate")
    ray, own = found["template"]["spec"]["containers"]
    return ray, own


def variables(container: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in container["env"]}


def test_server_and_collector_are_of_one_version() -> None:
    tags = [one["image"].rpartition(":")[2] for one in (collector()[1], deployed()["server"])]
    assert len(set(tags)) == 1
    assert tuple(map(int, tags[0].removeprefix("v").split("."))) >= (1, 7, 1), "1.7.0 shows live clusters"


def test_nobody_reaches_the_server_through_the_network() -> None:
    objects = server()
    assert set(objects) == {"ClusterRole", "ClusterRoleBinding", "NetworkPolicy", "Deployment"}, "no Service"
    policy, pod = objects["NetworkPolicy"]["spec"], objects["Deployment"]["spec"]["template"]
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"] == []
    assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    command = deployed()["dashboard"]["command"]
    assert "--dashboard-host=127.0.0.1" in command
    (port,) = deployed()["server"]["ports"]
    assert f"--proxy-server-url=http://127.0.0.1:{port['containerPort']}" in command


def test_the_server_may_look_at_clusters_and_change_nothing() -> None:
    objects = server()
    (rule,) = objects["ClusterRole"]["rules"]
    assert rule == {"apiGroups": ["ray.io"], "resources": ["rayclusters"], "verbs": ["get", "list", "watch"]}
    binding, pod = objects["ClusterRoleBinding"], objects["Deployment"]["spec"]["template"]["spec"]
    assert binding["roleRef"]["name"] == objects["ClusterRole"]["metadata"]["name"]
    assert binding["subjects"][0]["name"] == pod["serviceAccountName"]
    assert pod["automountServiceAccountToken"] is False
    volume = next(one["name"] for one in pod["volumes"] if "projected" in one)
    having = [c["name"] for c in pod["containers"] if volume in {m["name"] for m in c["volumeMounts"]}]
    assert having == ["server"]


def test_secrets_are_references_and_no_container_has_more_rights_than_it_needs() -> None:
    ray, own = collector()
    for container in (own, *deployed().values()):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])
        for name, entry in variables(container).items():
            if any(word in name for word in ("KEY", "TOKEN", "SECRET")):
                assert "secretKeyRef" in entry["valueFrom"], name
    for container in (own, deployed()["dashboard"]):
        assert variables(container)["RAY_AUTH_MODE"]["value"] == "token"
        assert variables(container)["RAY_AUTH_TOKEN"]["valueFrom"] == TOKEN
    assert not any("TOKEN" in name for name in variables(ray))
    assert server()["Deployment"]["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True


def test_ray_sends_its_events_to_the_collector_and_shares_its_folder() -> None:
    ray, own = collector()
    where = variables(ray)["RAY_DASHBOARD_AGGREGATOR_AGENT_EVENTS_EXPORT_ADDR"]["value"]
    assert where == f"http://localhost:{variables(own)['EVENTS_PORT']['value']}/v1/events"
    for container in (ray, own):
        (mount,) = container["volumeMounts"]
        assert mount["mountPath"] == variables(container)["RAY_TMP_ROOT"]["value"] == "/tmp/ray"
    names = list(variables(own))
    assert names.index("FQ_RAY_IP") > max(map(names.index, ("RAY_CLUSTER_NAME", "RAY_CLUSTER_NAMESPACE")))


def test_the_installed_ray_knows_the_switches() -> None:
    """An upgrade that renames one would leave the bucket empty without a word."""
    from ray.dashboard.modules.aggregator import aggregator_agent
    from ray.dashboard.modules.aggregator.publisher import configs
    from ray.scripts.scripts import start

    text = "".join(Path(str(module.__file__)).read_text() for module in (aggregator_agent, configs))
    ray, _ = collector()
    asked = [name for name in variables(ray) if name.startswith("RAY_DASHBOARD_AGGREGATOR_AGENT_")]
    assert len(asked) == 2
    assert all(f'"{name}"' in text for name in asked)
    known = {name for parameter in start.params for name in parameter.opts}
    words = [word for word in deployed()["dashboard"]["command"] if word.startswith("--")]
    assert {word.partition("=")[0] for word in words} <= known
