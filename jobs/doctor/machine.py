"""`poma doctor` on this machine: cores, threads, shared memory, disk, packages, GPUs, compiled ops."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable

import torch

from jobs.common.run_layout import RunJob
from jobs.doctor.facts import facts, shared_bytes
from jobs.doctor.finding import Finding, Level
from plinth.units import GIB, counted

LEAST_SCRATCH_BYTES = 5 * GIB


def machine(job: RunJob) -> Iterable[Finding]:
    """Cores against threads, shared memory, disk for checkpoints that wait for their upload."""
    workers, threads = max(1, job.fit.workers.max), job.fit.threads_per_worker
    if job.ray.joined_address is None:
        cores, free = os.cpu_count() or 1, shared_bytes()
        yield Finding(
            "machine", Level.warn if workers * threads > cores else Level.ok,
            f"{workers} workers of {counted(threads, 'thread')} on {cores} cores",
            "Threads that wait for each other's cores make all workers slower.",
            "Lower fit.workers or fit.threads_per_worker.",
        )  # fmt: skip
        yield Finding(
            "machine", Level.bad if free < job.ray.object_store_bytes else Level.ok,
            f"{free / GIB:.1f} GiB of shared memory, ray.object_store_bytes is "
            f"{job.ray.object_store_bytes / GIB:.1f} GiB",
            "Ray will put objects on the disk, or not start.",
            "Start the container with a larger --shm-size, or lower ray.object_store_bytes.",
        )  # fmt: skip
    scratch = shutil.disk_usage(tempfile.gettempdir()).free
    yield Finding(
        "machine", Level.warn if scratch < LEAST_SCRATCH_BYTES else Level.ok,
        f"{scratch / GIB:.0f} GiB free in {tempfile.gettempdir()}, where checkpoints wait for their upload",
        "A full disk costs checkpoints.", "Free some, or set TMPDIR to a larger disk.",
    )  # fmt: skip
    here = os.environ.get("OMP_NUM_THREADS", "not set")
    yield Finding("machine", Level.ok, f"OMP_NUM_THREADS is {here} here; workers set it to {threads}")


def memory_bytes() -> int:
    """Main memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def packages() -> Iterable[Finding]:
    """What is installed, and what torch can use."""
    here, gpus = facts(), torch.cuda.device_count()
    listed = ", ".join(f"{name} {version}" for name, version in here.versions.items())
    device = f"{gpus} x {torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}" if gpus else "no GPU here"
    built = ", ".join(here.prebuilt_ops) or "none"
    ops = f"DeepSpeed's compiled ops: none is needed (torch's AdamW), so no node compiles; built: {built}"
    for what in (listed, device, ops):
        yield Finding("packages", Level.ok, what)


def room(job: RunJob) -> Iterable[Finding]:
    """What the workers of a job without a cluster ask of this machine's GPUs and cores."""
    there, each, least = torch.cuda.device_count(), job.fit.gpus_per_worker, max(1, job.fit.workers.min)
    if there and not each:
        yield Finding(
            "machine", Level.warn, f"this machine has {counted(there, 'GPU')}, and fit.gpus_per_worker is 0",
            "The workers would train on CPUs beside them.", "Set fit.gpus_per_worker=1.",
        )  # fmt: skip
    elif there < each * least:
        yield Finding(
            "machine", Level.bad,
            f"fit.gpus_per_worker is {each:g}, and this machine has {counted(there, 'GPU')}",
            f"{counted(least, 'worker')} would wait for them for ever.",
            "Name a cluster (ray.address), or set fit.gpus_per_worker=0.",
        )  # fmt: skip
    cores, needed = job.ray.num_cpus or os.cpu_count() or 1, job.fit.cpus_per_worker * least
    if needed > cores:
        yield Finding(
            "machine", Level.bad,
            f"{needed:g} CPUs are needed by {counted(least, 'worker')} (fit.cpus_per_worker "
            f"{job.fit.cpus_per_worker:g}), and the Ray that is started here has {cores}",
            "They would wait for them for ever.",
            "Lower fit.workers or fit.cpus_per_worker (a fraction will do), or name a cluster (ray.address).",
        )  # fmt: skip
