"""`poma doctor` on machines: cores, shared memory, packages, the ring between processes, other nodes."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from jobs.cluster import ray_cluster
from jobs.config import PretrainJob
from jobs.doctor_finding import Finding, Level

PACKAGES = ("torch", "ray", "deepspeed", "pyarrow", "s3fs", "transformers", "numpy")
GIB = 2**30
SHARED_MEMORY = Path("/dev/shm")
RING_TIMEOUT_S = 60.0
MAX_SKEW_S = 2.0
LEAST_SCRATCH_BYTES = 5 * GIB


def machine(job: PretrainJob) -> Iterable[Finding]:
    """Cores against threads, shared memory, room for checkpoints on their way."""
    cores, workers = os.cpu_count() or 1, max(1, job.fit.workers.max)
    threads = workers * job.fit.threads_per_worker
    if job.ray.address is None:
        crowded = threads > cores
        yield Finding(
            "machine", Level.warn if crowded else Level.ok,
            f"{workers} workers of {job.fit.threads_per_worker} thread(s) on {cores} cores",
            "Threads that wait for each other's cores make all workers slower." if crowded else "",
            "Lower fit.workers or fit.threads_per_worker." if crowded else "",
        )  # fmt: skip
        free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
        short = free < job.ray.object_store_bytes
        yield Finding(
            "machine", Level.bad if short else Level.ok,
            f"{free / GIB:.1f} GiB of shared memory, ray.object_store_bytes is "
            f"{job.ray.object_store_bytes / GIB:.1f} GiB",
            "Ray will put objects on the disk, or not start." if short else "",
            "Start the container with a larger --shm-size, or lower ray.object_store_bytes." if short else "",
        )  # fmt: skip
    scratch = shutil.disk_usage(tempfile.gettempdir()).free
    tight = scratch < LEAST_SCRATCH_BYTES
    yield Finding(
        "machine", Level.warn if tight else Level.ok,
        f"{scratch / GIB:.0f} GiB free in {tempfile.gettempdir()}, where checkpoints wait for their upload",
        "A full disk costs checkpoints." if tight else "",
        "Free some, or set TMPDIR to a larger disk." if tight else "",
    )  # fmt: skip
    asked = os.environ.get("OMP_NUM_THREADS")
    if asked and asked != str(job.fit.threads_per_worker):
        yield Finding(
            "machine", Level.ok,
            f"OMP_NUM_THREADS is {asked} here; workers use {job.fit.threads_per_worker} thread(s) each",
        )  # fmt: skip


def memory_bytes() -> int:
    """Of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def packages() -> Iterable[Finding]:
    """What is installed, and what torch can use."""
    found = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    yield Finding("packages", Level.ok, found)
    gpus = torch.cuda.device_count()
    device = torch.cuda.get_device_name(0) if gpus else ""
    seen = f"{gpus} x {device}, CUDA {torch.version.cuda}" if gpus else "no GPU here"
    yield Finding("packages", Level.ok, seen)


def ring() -> Iterable[Finding]:
    """Two processes of this machine sum over gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=_sum, args=(rank, port)) for rank in range(2)]
    for process in processes:
        process.start()
    deadline = time.monotonic() + RING_TIMEOUT_S
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    ended = [process.exitcode == 0 for process in processes]
    for process in processes:
        if process.is_alive():
            process.kill()
    yield Finding(
        "ring", Level.ok if all(ended) else Level.bad,
        "two processes reach each other over gloo" if all(ended) else "two processes do not reach each other",
        "" if all(ended) else "Training would hang at its first collective.",
        "" if all(ended) else "Look at the firewall and at GLOO_SOCKET_IFNAME.",
    )  # fmt: skip


def _sum(rank: int, port: int) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    ones = torch.ones(1)
    dist.all_reduce(ones)
    assert ones.item() == 2


def nodes(job: PretrainJob) -> Iterable[Finding]:
    """Every node of the cluster that the job names: the same packages, the same time."""
    if job.ray.address is None and not os.environ.get("RAY_ADDRESS"):
        return
    with ray_cluster(job.ray, 1):
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        alive = [node for node in ray.nodes() if node["Alive"]]
        task: Any = ray.remote(num_cpus=0)(_node)
        answers = {}
        for node in alive:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            began = time.time()
            versions, clock = ray.get(task.options(scheduling_strategy=there).remote())
            late = max(began - clock, clock - time.time(), 0.0)  # outside the call's own time
            answers[node["NodeManagerHostname"]] = versions, late
    here, _ = _node()
    for host, (versions, skew) in answers.items():
        other = [f"{name} {versions[name]}" for name in PACKAGES if versions.get(name) != here[name]]
        yield Finding(
            "nodes", Level.bad if other else Level.ok,
            f"{host} has {', '.join(other)}, this machine {', '.join(f'{n} {here[n]}' for n in PACKAGES)}"
            if other else f"{host} has the same packages",
            "Workers would not understand each other's objects." if other else "",
            "Use one image for all nodes." if other else "",
        )  # fmt: skip
        if skew > MAX_SKEW_S:
            yield Finding(
                "nodes", Level.warn, f"the clock of {host} is {skew:.1f} s off",
                "The ledger and the order of failures will be wrong.", "Start a time service.",
            )  # fmt: skip


def _node() -> tuple[dict[str, str], float]:
    """On a node: versions, and the time there."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}, time.time()
