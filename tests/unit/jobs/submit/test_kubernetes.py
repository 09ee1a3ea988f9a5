"""`poma submit --render`: a run as Kubernetes objects, whole and without a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.cli import main
from jobs.pretrain.config import PretrainJob
from plinth import config
from tests.helpers.infra.secrets import findings
from tests.helpers.tiny_jobs import ingest_job, pretrain_job, write


def job_file(folder: Path, **changes: Any) -> str:
    job = pretrain_job(folder, warmup=None, name="rooms", output="s3://bucket/runs", **changes)
    job["teacher"] = {"source": "s3://bucket/teacher"}
    job["main"]["data"]["sources"] = [{"uri": "s3://bucket/rooms"}]
    job.setdefault("fit", {}).update(workers=24, gpus_per_worker=1)
    return write(folder / "job.yaml", job)


def rendered(folder: Path, *more: str, **changes: Any) -> dict[str, dict[str, Any]]:
    out = folder / "run.yaml"
    assert main(["submit", job_file(folder, **changes), "--skip-check", "--render", str(out), *more]) == 0
    return {document["kind"]: document for document in yaml.safe_load_all(out.read_text())}


def test_the_job_is_inside_and_the_head_runs_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = rendered(tmp_path, "main.steps=77", "--accept-changes")
    assert list(found) == ["ConfigMap", "RayJob", "PodDisruptionBudget", "NetworkPolicy"]
    name = found["RayJob"]["metadata"]["name"]
    assert name.startswith("poma-rooms-")
    assert {(d["metadata"]["name"], d["metadata"]["namespace"]) for d in found.values()} == {(name, "poma3d")}
    sent = found["ConfigMap"]["data"]["job.yaml"]
    job = config.build(PretrainJob, [("sent", config.parse(sent, "sent"))])
    assert job.main is not None
    assert (job.main.steps, job.output) == (77, "s3://bucket/runs")
    spec = found["RayJob"]["spec"]
    assert spec["entrypoint"] == "poma pretrain /home/poma/job/job.yaml --accept-changes"
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert {"name": "job", "configMap": {"name": name}} in head["volumes"]
    assert {"name": "job", "mountPath": "/home/poma/job", "readOnly": True} in head["containers"][0][
        "volumeMounts"
    ]
    assert "replace REGISTRY and VERSION" in capsys.readouterr().out


def test_the_pods_are_as_many_as_the_workers_need_and_its_own(tmp_path: Path) -> None:
    found = rendered(tmp_path)
    name = found["RayJob"]["metadata"]["name"]
    cluster = found["RayJob"]["spec"]["rayClusterSpec"]
    train = cluster["workerGroupSpecs"][0]
    assert train["replicas"] == train["minReplicas"] == train["maxReplicas"] == 3
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert all(group["template"]["metadata"]["labels"] == {"poma3d/run": name} for group in groups)
    budget = found["PodDisruptionBudget"]["spec"]
    assert budget == {"minAvailable": 5, "selector": {"matchLabels": {"poma3d/run": name}}}
    policy = found["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == {"poma3d/run": name}
    submitter = found["RayJob"]["spec"]["submitterPodTemplate"]["metadata"]["labels"]
    assert {"podSelector": {"matchLabels": submitter}} in policy["ingress"][1]["from"]


def test_secrets_stay_references(tmp_path: Path) -> None:
    keys = {"access_key_env": "POMA_ACCESS_KEY", "secret_key_env": "POMA_SECRET_KEY"}
    found = rendered(tmp_path, "--env", "NCCL_DEBUG=INFO", storage=keys)
    assert not findings((tmp_path / "run.yaml").read_text())
    for group in found["RayJob"]["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        env = {entry["name"]: entry for entry in group["template"]["spec"]["containers"][0]["env"]}
        assert env["NCCL_DEBUG"] == {"name": "NCCL_DEBUG", "value": "INFO"}
        assert all("value" not in env[name] for name in ("RAY_AUTH_TOKEN", *keys.values()))


@pytest.mark.parametrize(
    ("changes", "overrides", "words"),
    [
        ({}, ["fit.gpus_per_worker=0"], "Set fit.gpus_per_worker=1"),
        ({}, ["output=/runs"], "names local folders"),
        (
            {"storage": {"access_key_env": "MY_KEY", "secret_key_env": "POMA_SECRET_KEY"}}, [],
            "storage.access_key_env is MY_KEY, which the pods do not have. They have POMA_ACCESS_KEY",
        ),
    ],
)  # fmt: skip
def test_what_the_pods_cannot_run_is_refused(
    changes: dict[str, Any],
    overrides: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = job_file(tmp_path, **changes)
    assert main(["submit", job, *overrides, "--skip-check", "--render", str(tmp_path / "run.yaml")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run.yaml").exists()


def test_other_kinds_have_no_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = write(tmp_path / "job.yaml", ingest_job("s3://bucket/rooms"))
    assert main(["submit", job, "--render", str(tmp_path / "run.yaml")]) == 2
    assert "The manifest is for pretraining" in capsys.readouterr().err


def test_a_range_of_workers_grows_from_the_fewest_pods_to_the_most(tmp_path: Path) -> None:
    found = rendered(tmp_path, "fit.workers={min: 8, max: 24}")
    run = found["RayJob"]
    assert run["metadata"]["annotations"] == {"kueue.x-k8s.io/elastic-job": "true"}
    assert run["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "poma3d"
    cluster = run["spec"]["rayClusterSpec"]
    train = cluster["workerGroupSpecs"][0]
    assert (train["replicas"], train["minReplicas"], train["maxReplicas"]) == (1, 1, 3)
    assert cluster["enableInTreeAutoscaling"] is True
    (mount,) = cluster["autoscalerOptions"]["volumeMounts"]
    head = cluster["headGroupSpec"]["template"]["spec"]
    assert mount["name"] in {volume["name"] for volume in head["volumes"]}
    assert found["PodDisruptionBudget"]["spec"]["minAvailable"] == 3, "what it shrinks to is no disruption"
    fixed = rendered(tmp_path)["RayJob"]
    assert "annotations" not in fixed["metadata"]
    assert "enableInTreeAutoscaling" not in fixed["spec"]["rayClusterSpec"]


HISTORY = {"history": {"location": "s3://bucket/ray-history"}}


def collected(found: dict[str, dict[str, Any]]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Group -> the variables of Ray's container and of the collector."""
    cluster = found["RayJob"]["spec"]["rayClusterSpec"]
    groups = {"head": cluster["headGroupSpec"]} | {g["groupName"]: g for g in cluster["workerGroupSpecs"]}
    made = {}
    for name, group in groups.items():
        pod = group["template"]["spec"]
        ray, own = pod["containers"]
        assert own["name"] == "collector", "KubeRay takes the first for Ray's"
        shared = {mount["name"] for mount in ray["volumeMounts"]} & {m["name"] for m in own["volumeMounts"]}
        assert shared <= {volume["name"] for volume in pod["volumes"]}
        assert shared
        of_ray, of_own = ({entry["name"]: entry for entry in one["env"]} for one in (ray, own))
        made[name] = of_ray, of_own
    return made


def test_history_puts_a_collector_into_every_pod(tmp_path: Path) -> None:
    keys = {"access_key_env": "POMA_ACCESS_KEY", "secret_key_env": "POMA_SECRET_KEY"}
    store = {"region": "any", "endpoint_url": "http://minio.storage:9000", **keys}
    found = rendered(tmp_path, "--env", "NCCL_DEBUG=INFO", storage=store, kubernetes=HISTORY)
    assert not findings((tmp_path / "run.yaml").read_text())
    made = collected(found)
    assert list(made) == ["head", "train", "data"]
    for name, (of_ray, own) in made.items():
        values = {key: entry["value"] for key, entry in own.items() if "value" in entry}
        assert values["RAY_ROLE"] == ("Head" if name == "head" else "Worker")
        assert values["OWNER_NAME"] == found["RayJob"]["metadata"]["name"]
        assert (values["STORAGE_BACKEND"], values["S3_BUCKET"]) == ("s3", "bucket")
        assert values["STORAGE_ROOT_DIR"] == "ray-history"
        assert values["S3_ENDPOINT"] == "minio.storage:9000", "without a scheme"
        assert (values["S3DISABLE_SSL"], values["S3FORCE_PATH_STYLE"], values["S3_REGION"]) == (
            "true", "true", "any",
        )  # fmt: skip
        assert own["AWS_ACCESS_KEY_ID"]["valueFrom"] == of_ray["POMA_ACCESS_KEY"]["valueFrom"]
        assert own["AWS_SECRET_ACCESS_KEY"]["valueFrom"] == of_ray["POMA_SECRET_KEY"]["valueFrom"]
        assert of_ray["RAY_enable_ray_event"]["value"] == "true"
        assert "NCCL_DEBUG" in of_ray
        assert "NCCL_DEBUG" not in own


def test_history_in_google_storage_has_no_keys(tmp_path: Path) -> None:
    asked = {"history": {"location": "gs://bucket/a/b"}}
    _, own = collected(rendered(tmp_path, kubernetes=asked))["train"]
    assert own["GCS_BUCKET"]["value"] == "bucket"
    assert own["STORAGE_ROOT_DIR"]["value"] == "a/b"
    assert not [name for name in own if name.startswith(("S3", "AWS"))]


def test_without_history_there_is_no_collector(tmp_path: Path) -> None:
    text = str(rendered(tmp_path))
    assert "collector" not in text
    assert "ray_event" not in text


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("az://bucket/prefix", "expected s3://bucket/prefix or gs://bucket/prefix"),
        ("s3://bucket", "kubernetes.history.location is s3://bucket, expected s3://bucket/prefix"),
        ("s3://bucket/prefix", "storage.region is empty"),
        ("history", "names local folders"),
    ],
)
def test_a_history_that_no_collector_can_keep_is_refused(
    location: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_file(tmp_path, kubernetes={"history": {"location": location}})
    assert main(["submit", job, "--skip-check", "--render", str(tmp_path / "run.yaml")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run.yaml").exists()


def test_a_store_whose_address_has_no_scheme_is_refused_with_history(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The collector would get an empty address, and write to AWS."""
    job = job_file(tmp_path, kubernetes=HISTORY, storage={"region": "any", "endpoint_url": "minio:9000"})
    assert main(["submit", job, "--skip-check", "--render", str(tmp_path / "run.yaml")]) == 2
    assert "storage.endpoint_url is minio:9000, expected http://HOST:PORT" in capsys.readouterr().err
