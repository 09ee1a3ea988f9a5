"""A run as Kubernetes objects, from `infra/kuberay/base`: job file, RayJob, disruption budget, policy.

The pods run the code of their image, so the image has to be of this version. Secrets stay references: the
token and, where there is no role, the storage keys come from Kubernetes secrets, as in the base.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from jobs.jobfile import command_of
from jobs.pretrain.config import PretrainJob
from jobs.submit.history import add_collectors
from jobs.submit.package import JOB_FILE
from jobs.submit.submission import RUN, Submission
from plinth.errors import ConfigError

BASE = Path(__file__).parents[2] / "infra" / "kuberay" / "base"
COLLECTOR = BASE.parent / "history" / "collector.yaml"
MOUNT = "/home/poma/job"
GPU = "nvidia.com/gpu"
ELASTIC = "kueue.x-k8s.io/elastic-job"
"""Annotation by which Kueue (0.16 and newer) counts a job anew when it grows or shrinks."""
RUN_LABELS = ("poma3d/run", "poma3d/submits")
"""Labels by which the budget and the policy find the pods of one run."""
TO_REPLACE = re.compile(r"\b(?:REGISTRY|VERSION)\b")

Manifest = dict[str, Any]


class _Plain(yaml.SafeDumper):
    """Without anchors: the file is there to be read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write(path: Path, submission: Submission, variables: dict[str, str], accept_changes: bool = False) -> int:
    """Write the manifest of a run and say what to do with it; returns the exit code.

    Raises:
        ConfigError: a job that these pods cannot run, or no `infra/` beside the code.
    """
    documents = render(submission, variables, accept_changes)
    head = f"# {submission.uri}, by `poma submit --render`. kubectl apply -f {path.name}\n"
    text = head + "---\n".join(
        yaml.dump(document, Dumper=_Plain, sort_keys=False, width=110) for document in documents
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    left = sorted(set(TO_REPLACE.findall(text)))
    print(f"{path}: {', '.join(document['kind'] for document in documents)} {submission.name}")
    if left:
        print(f"replace {' and '.join(left)} with those of your image, then: kubectl apply -f {path}")
    print("secrets that it refers to: infra/kuberay/README.md")
    return 0


def render(submission: Submission, variables: dict[str, str], accept_changes: bool = False) -> list[Manifest]:
    """The objects of a run.

    Args:
        variables: of all pods, none of them secret.
        accept_changes: as of `poma pretrain`.

    Raises:
        ConfigError: a job that these pods cannot run, or no `infra/` beside the code.
    """
    job = _fitting(submission)
    if not BASE.is_dir():
        raise ConfigError(f"{BASE} is not there.", "Render from a checkout of the project.")
    namespace = _load("kustomization.yaml")["namespace"]
    run, budget, policy = (
        _named(_load(f"{file}.yaml"), submission.name, namespace)
        for file in ("rayjob", "disruption-budget", "network-policy")
    )
    cluster = run["spec"]["rayClusterSpec"]
    run["spec"]["entrypoint"] = submission.command(f"{MOUNT}/{JOB_FILE}", accept_changes)
    _mount_job(cluster["headGroupSpec"]["template"]["spec"], submission.name)
    _size(run, job)
    for container in _containers(cluster):
        container["env"] += [{"name": name, "value": value} for name, value in variables.items()]
    _check_references(cluster, job)
    if (asked := job.kubernetes.history) is not None:
        collector = yaml.safe_load(COLLECTOR.read_text())
        add_collectors(cluster, collector, asked, job.storage, submission.name)
    budget["spec"]["minAvailable"] = 1 + sum(group["replicas"] for group in cluster["workerGroupSpecs"])
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": submission.name, "namespace": namespace},
        "data": {JOB_FILE: submission.text},
    }
    return [config_map, run, budget, policy]


def _fitting(submission: Submission) -> PretrainJob:
    job: PretrainJob = submission.job
    if submission.kind != RUN:
        command = command_of(submission.kind)
        raise ConfigError(f"The manifest is for pretraining, this is a job for `poma {command}`.")
    if submission.has_local_paths:
        raise ConfigError(
            "The job names local folders, which the pods do not have.",
            "Give output, data and teacher as s3://bucket/prefix (or a hub id with its revision).",
        )
    if job.fit.gpus_per_worker <= 0:
        raise ConfigError("The manifest trains on GPU nodes.", "Set fit.gpus_per_worker=1.")
    return job


def _load(name: str) -> Manifest:
    loaded: Manifest = yaml.safe_load((BASE / name).read_text())
    return loaded


def _named(manifest: Manifest, name: str, namespace: str) -> Manifest:
    """A copy for this run alone: its name, and its label wherever pods are selected."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: name if k in RUN_LABELS else walk(below) for k, below in value.items()}
        return [walk(below) for below in value] if isinstance(value, list) else value

    mine: Manifest = walk(manifest)
    mine["metadata"] |= {"name": name, "namespace": namespace}
    return mine


def _mount_job(pod: Manifest, name: str) -> None:
    """The job file in the head's pod, where the job's command runs."""
    pod["volumes"].append({"name": "job", "configMap": {"name": name}})
    (container,) = pod["containers"]
    container["volumeMounts"].append({"name": "job", "mountPath": MOUNT, "readOnly": True})


def _size(run: Manifest, job: PretrainJob) -> None:
    """The GPU pods that the workers need: a gang of a fixed size, or one that grows from the fewest to the
    most."""
    cluster = run["spec"]["rayClusterSpec"]
    train = next(group for group in cluster["workerGroupSpecs"] if group["groupName"] == "train")
    (container,) = train["template"]["spec"]["containers"]
    gpus = int(container["resources"]["limits"][GPU])
    fewest, most = (
        math.ceil(workers * job.fit.gpus_per_worker / gpus)
        for workers in (job.fit.workers.min, job.fit.workers.max)
    )
    train |= {"replicas": fewest, "minReplicas": fewest, "maxReplicas": most}
    if fewest < most:
        run["metadata"]["annotations"] = {ELASTIC: "true"}
        _add_autoscaler(cluster)


def _add_autoscaler(cluster: Manifest) -> None:
    """What the autoscaler of `raycluster.yaml` has: its options, and the volume with its token."""
    standing = yaml.safe_load((BASE.parent / "raycluster.yaml").read_text())["spec"]
    cluster |= {key: standing[key] for key in ("enableInTreeAutoscaling", "autoscalerOptions")}
    mounted = {mount["name"] for mount in standing["autoscalerOptions"]["volumeMounts"]}
    volumes = standing["headGroupSpec"]["template"]["spec"]["volumes"]
    cluster["headGroupSpec"]["template"]["spec"]["volumes"] += [v for v in volumes if v["name"] in mounted]


def _containers(cluster: Manifest) -> Iterator[Manifest]:
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield from group["template"]["spec"]["containers"]


def _check_references(cluster: Manifest, job: PretrainJob) -> None:
    """The variables that the job names for its keys must be among those that the pods get."""
    given = {entry["name"] for container in _containers(cluster) for entry in container["env"]}
    for key in ("access_key_env", "secret_key_env", "session_token_env"):
        name = getattr(job.storage, key)
        if name is not None and name not in given:
            known = sorted(entry for entry in given if entry.startswith("POMA_"))
            raise ConfigError(
                f"storage.{key} is {name}, which the pods do not have.",
                f"They have {', '.join(known)}, from the secret poma3d-storage.",
            )
