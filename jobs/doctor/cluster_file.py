"""`poma doctor` on a cluster file: whether the job asks for what the machines have, and waits for them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import yaml

from jobs.common.run_layout import RunJob
from jobs.doctor.finding import Finding, Level
from jobs.doctor.kinds import ExaminedJob, stages_of
from jobs.plan.machines import Cluster
from plinth.units import counted

USUAL_START_S = 300.0
"""What a cloud takes to give a GPU node and start its container; more when it is short of them."""
LABELS_FLAG = re.compile(r"--labels[= ]([\w.=,-]+)")


def machines(job: ExaminedJob, cluster: Cluster | None) -> Iterable[Finding]:
    """What the job asks of the cluster file's machines, and which of them read."""
    if cluster is None:
        return
    each, workers = job.fit.gpus_per_worker, max(1, job.fit.workers.max)
    train = cluster.train
    if train is not None and not each:
        yield Finding(
            "gpus", Level.warn,
            f"{cluster.path.name} has nodes of {train.gpus} GPUs, and fit.gpus_per_worker is 0",
            "The workers would train on CPUs at the price of GPUs.", "Set fit.gpus_per_worker=1.",
        )  # fmt: skip
    elif each:
        there = sum(n.gpus * n.most for n in cluster.workers)
        yield Finding(
            "gpus", Level.ok if there >= each * workers else Level.warn,
            f"{counted(workers, 'worker')} of {each:g} GPU, {cluster.path.name} may have {there}",
            "The run never grows to fit.workers.max.",
            "Raise max_workers of a GPU node type, or lower fit.workers.",
        )  # fmt: skip
    for name, stage in stages_of(job):
        yield from _readers(name, stage.data.ray_label, stage.data.ray_task_cpus, cluster)


def _readers(stage: str, label: str | None, cpus: float, cluster: Cluster) -> Iterable[Finding]:
    key, _, value = (label or "").partition("=")
    if label and (key, value) not in labels(cluster.path):
        yield Finding(
            "gpus", Level.bad,
            f"{stage}.data.ray_label is {label}, and no node type of {cluster.path.name} has it",
            "Reading would wait for such a node for ever.", "Label the data nodes, or leave ray_label empty.",
        )  # fmt: skip
    if cluster.data and not label and not cpus:
        yield Finding(
            "gpus", Level.warn, f"{cluster.path.name} has data nodes, and {stage} reads on any node",
            "Reading and decoding take cores and memory from the training workers.",
            f"Set {stage}.data.ray_label=poma-role=data.",
        )  # fmt: skip


def labels(path: Path) -> set[tuple[str, str]]:
    """Labels of the node types of a cluster file and of its commands that start Ray on own machines."""
    text = path.read_text()
    types = yaml.safe_load(text).get("available_node_types", {})
    found = {(str(k), str(v)) for entry in types.values() for k, v in entry.get("labels", {}).items()}
    given = [pair.partition("=") for flag in LABELS_FLAG.findall(text) for pair in flag.split(",")]
    return found | {(k, v) for k, _, v in given}


def time_outs(job: RunJob, cluster: Cluster | None) -> Iterable[Finding]:
    """What the job waits for, against what machines take to come."""
    if cluster is None or not cluster.workers:
        return
    if job.fit.start_timeout_s < USUAL_START_S:
        yield Finding(
            "time-outs", Level.warn,
            f"fit.start_timeout_s is {job.fit.start_timeout_s:g} s; machines of {cluster.path.name} take "
            f"about {USUAL_START_S:g} s to come",
            "Each try that times out counts against fit.max_failures.",
            f"Set fit.start_timeout_s={USUAL_START_S:g} or more.",
        )  # fmt: skip
