"""`poma doctor` on the nodes of a running cluster: packages, clocks, shared memory, GPUs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from jobs.common.cluster import ray_cluster
from jobs.common.run_layout import RunJob
from jobs.doctor.all_reduce import cluster_ring
from jobs.doctor.facts import PACKAGES, NodeFacts, facts
from jobs.doctor.finding import Finding, Level
from plinth.units import GIB, counted

LEAST_SHARED_BYTES = 1 << 30
"""Ray's object store and the processes' own shared memory want at least this."""
MAX_SKEW_S = 2.0
ANSWER_TIMEOUT_S = 30.0


def nodes(job: RunJob) -> Iterable[Finding]:
    """Every node of the cluster that the job names."""
    if job.ray.joined_address is None:
        return
    with ray_cluster(job.ray, 1):
        import ray

        alive = [node for node in ray.nodes() if node["Alive"]]
        answers, silent = _ask(alive)
        here = facts()
        for host, there, skew_s in answers:
            yield from compare(host, there, skew_s, here)
        for host in silent:
            yield Finding(
                "nodes", Level.bad, f"{host} gives no answer in {ANSWER_TIMEOUT_S:g} s",
                "Workers would not start there.", "Look at its logs, or take it out.",
            )  # fmt: skip
        yield from _gpus(job, ray.cluster_resources())
        if len(alive) > 1 and not silent:
            free = ray.available_resources().get("GPU", 0)
            trains = [n for n in alive if n["Resources"].get("GPU")] if job.fit.gpus_per_worker else []
            on_gpus = len(trains) > 1 and free >= len(trains)
            ring = trains if on_gpus else alive
            yield from cluster_ring(
                [n["NodeID"] for n in ring], [n["NodeManagerHostname"] for n in ring], on_gpus
            )


def _ask(alive: list[dict[str, Any]]) -> tuple[list[tuple[str, NodeFacts, float]], list[str]]:
    """What each node says, with how far its clock is off in seconds; and those that say nothing."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task: Any = ray.remote(num_cpus=0, max_retries=0)(facts)
    began = time.time()
    waiting = {}
    for node in alive:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        waiting[task.options(scheduling_strategy=there).remote()] = name
    answers, silent = [], []
    while waiting:
        left_s = began + ANSWER_TIMEOUT_S - time.time()
        ready, _ = ray.wait(list(waiting), timeout=max(0.0, left_s))
        if not ready:
            break
        name = waiting.pop(ready[0])
        try:
            said = ray.get(ready[0])
        except ray.exceptions.RayError:
            silent.append(name)
        else:  # off is what lies outside the call's own time
            answers.append((name, said, max(began - said.time, said.time - time.time(), 0.0)))
    return answers, silent + list(waiting.values())


def compare(host: str, there: NodeFacts, skew_s: float, here: NodeFacts) -> Iterable[Finding]:
    other = [name for name in PACKAGES if there.versions.get(name) != here.versions[name]]
    listed = ", ".join(f"{name} {there.versions.get(name)} (here {here.versions[name]})" for name in other)
    yield Finding(
        "nodes", Level.bad if other else Level.ok, f"{host} has {listed or 'the same packages'}",
        "Workers would not understand each other's objects.", "Use one image for all nodes.",
    )  # fmt: skip
    if skew_s > MAX_SKEW_S:
        yield Finding(
            "nodes", Level.warn, f"the clock of {host} is {skew_s:.1f} s off",
            "The ledger and the order of failures will be wrong.", "Start a time service.",
        )  # fmt: skip
    if there.shared_bytes < LEAST_SHARED_BYTES:
        yield Finding(
            "nodes", Level.warn, f"{host} has {there.shared_bytes / GIB:.1f} GiB of shared memory free",
            "Ray will put objects on the disk, or not start.",
            "Start the container with a larger --shm-size.",
        )  # fmt: skip
    if missing := sorted(set(here.prebuilt_ops) - set(there.prebuilt_ops)):
        yield Finding(
            "nodes", Level.warn, f"{host} lacks DeepSpeed ops that are built here: {', '.join(missing)}",
            "It would compile them when they are first used.", "Use one image for all nodes.",
        )  # fmt: skip


def _gpus(job: RunJob, resources: dict[str, float]) -> Iterable[Finding]:
    there, each = resources.get("GPU", 0), job.fit.gpus_per_worker
    if there and not each:
        yield Finding(
            "nodes", Level.warn, f"the cluster has {there:g} GPUs, and fit.gpus_per_worker is 0",
            "The workers would train on CPUs beside them.", "Set fit.gpus_per_worker=1.",
        )  # fmt: skip
    elif each and there < each * max(1, job.fit.workers.min):
        yield Finding(
            "nodes", Level.warn,
            f"the cluster has {there:g} GPUs now, and {each:g} each are needed by "
            f"{counted(max(1, job.fit.workers.min), 'worker')}",
            "The run waits until the cluster grows, at most fit.start_timeout_s.",
            "Raise min_workers of the cluster, or lower fit.workers.",
        )  # fmt: skip
