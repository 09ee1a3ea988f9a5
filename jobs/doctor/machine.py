"""`poma doctor` on this machine: cores, threads, shared memory, disk, packages, GPUs, compiled ops."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Iterable

import torch

from jobs.doctor.finding import Finding, Level
from jobs.doctor.nodes import PACKAGES, SHARED_MEMORY, has_cluster, prebuilt_ops
from jobs.pretrain.config import PretrainJob
from plinth.units import GIB

LEAST_SCRATCH_BYTES = 5 * GIB


def machine(job: PretrainJob) -> Iterable[Finding]:
    """Cores against threads, shared memory, room for checkpoints on their way."""
    cores, workers = os.cpu_count() or 1, max(1, job.fit.workers.max)
    threads = workers * job.fit.threads_per_worker
    if not has_cluster(job):
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
    asked = os.environ.get("OMP_NUM_THREADS", "not set")
    yield Finding(
        "machine", Level.ok,
        f"OMP_NUM_THREADS is {asked} here; workers set it to {job.fit.threads_per_worker} for themselves",
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
    prebuilt = ", ".join(prebuilt_ops()) or "none"
    yield Finding(
        "packages", Level.ok,
        f"DeepSpeed's compiled ops: none is needed (torch's AdamW), so no node compiles; built: {prebuilt}",
    )  # fmt: skip


def gpus(job: PretrainJob) -> Iterable[Finding]:
    """What a job without a cluster asks of this machine's GPUs."""
    there, each = torch.cuda.device_count(), job.fit.gpus_per_worker
    least = each * max(1, job.fit.workers.min)
    if there and not each:
        yield Finding(
            "machine", Level.warn, f"this machine has {there} GPU(s), and fit.gpus_per_worker is 0",
            "The workers would train on CPUs beside them.", "Set fit.gpus_per_worker=1.",
        )  # fmt: skip
    elif there < least:
        yield Finding(
            "machine", Level.bad, f"fit.gpus_per_worker is {each:g}, and this machine has {there} GPU(s)",
            f"{max(1, job.fit.workers.min)} worker(s) would wait for them until fit.start_timeout_s.",
            "Name a cluster (--cluster FILE, ray.address), or set fit.gpus_per_worker=0.",
        )  # fmt: skip
