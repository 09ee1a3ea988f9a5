"""`poma doctor [JOB]`: what would go wrong, found in under a minute, before anything is paid for.

Every finding says what was seen, why it matters and how to fix it. Nothing is trained and nothing is left in
storage.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch

from jobs.common.run_layout import RunJob
from jobs.demo.config import DemoJob
from jobs.doctor import all_reduce, cluster_file, kinds, machine, nodes, storage, versions
from jobs.doctor.finding import Finding, Level
from jobs.doctor.kinds import ExaminedJob
from jobs.finetune.config import FinetuneJob
from jobs.finetune.llm.config import FinetuneLlmJob
from jobs.jobfile import read
from jobs.plan.bound import at_most
from jobs.plan.machines import Cluster, read_cluster
from jobs.pretrain.config import PretrainJob
from plinth.errors import EXIT_CODE, ConfigError, PlinthError, raise_together
from plinth.units import GIB, counted

MEMORY_MARGIN = 0.9
"""Share of a device's memory that a plan may fill: allocators and the driver need the rest."""

Check = tuple[str, Callable[[], Iterable[Finding]]]


def run(arguments: argparse.Namespace) -> int:
    """Examine this machine and, if given, a job; returns the exit code."""
    began = time.monotonic()
    job = _load(arguments.job, arguments.overrides) if arguments.job is not None else None
    worst, said = Level.ok, set()
    for name, check in checks(job, arguments.cluster):
        for finding in examined(name, check):
            worst = max(worst, finding.level)
            if finding.level is Level.bad and finding.what in said:
                continue  # one mistake in the way of several checks
            said.add(finding.what)
            print(finding.text(), flush=True)
    print(f"{worst.name.upper()} after {time.monotonic() - began:.0f} s")
    return EXIT_CODE if worst is Level.bad else 0


def _load(path: Path, overrides: Sequence[str]) -> ExaminedJob:
    """A job that trains; of a demo the pretraining inside."""
    file = read(path)
    if file.kind == DemoJob.kind:
        return file.resolve(DemoJob, overrides).pretrain
    if file.kind == FinetuneJob.kind:
        return file.resolve(FinetuneJob, overrides)
    if file.kind == FinetuneLlmJob.kind:
        return file.resolve(FinetuneLlmJob, overrides)
    return file.resolve(PretrainJob, overrides)


def checks(job: ExaminedJob | None, file: Path | None) -> list[Check]:
    """What is examined, in order.

    Args:
        file: a cluster file, or a manifest for Kubernetes, of which the versions alone are looked at.

    Raises:
        ConfigError: it is neither.
    """
    is_cluster = file is not None and not versions.is_manifest(file)
    cluster = read_cluster(file) if file is not None and is_cluster else None
    workers = max(1, job.fit.workers.max) if job else 1
    gpus = torch.cuda.device_count() if job and job.fit.gpus_per_worker else 0
    always: list[Check] = [
        ("packages", machine.packages),
        ("ring", partial(all_reduce.local_ring, workers, gpus)),
    ]
    if file is not None:
        always.insert(0, (versions.CHECK, partial(versions.versions, file)))
    if job is None:
        return always
    is_elsewhere = file is not None or job.ray.joined_address is not None
    # A manifest says nothing of its GPUs' memory, and this machine's is not theirs.
    fits: list[Check] = [("memory", partial(_memory, job, cluster))] if file is None or is_cluster else []
    on_cluster, here = partial(cluster_file.machines, job, cluster), partial(machine.room, job)
    return [
        ("workers", partial(_sizes, job)),
        ("machine", partial(machine.machine, job)),
        ("gpus", on_cluster if is_elsewhere else here),
        ("storage", partial(storage.storage, job)),
        ("data", partial(kinds.data, job)),
        *fits,
        ("time-outs", partial(cluster_file.time_outs, job, cluster)),
        ("nodes", partial(nodes.nodes, job)),
        *always,
    ]


def before_a_run(job: PretrainJob) -> list[str]:
    """What is doubtful about a checked job, as lines: `poma pretrain` says it before it starts anything."""
    is_here = _trains_here(job)
    looks: list[Check] = [("machine", partial(machine.machine, job))] if is_here else []
    looks += [("data", partial(storage.data, job)), ("memory", partial(_memory_unless_small, job))]
    found = [finding for name, check in looks for finding in examined(name, check)]
    return [finding.text() for finding in found if finding.level is not Level.ok]


def refuse_no_room(job: RunJob) -> None:
    """Refuse workers that this machine can never give room to, where no cluster is named: nothing can grow.

    Raises:
        PlinthError: naming the keys.
    """

    def refuse(finding: Finding) -> None:
        if finding.level is Level.bad:
            raise ConfigError(f"{finding.what}. {finding.why}", finding.fix)

    if _trains_here(job):
        raise_together([partial(refuse, finding) for finding in machine.room(job)])


def _trains_here(job: RunJob) -> bool:
    """Whether the job starts a Ray of its own."""
    return job.fit.workers.max > 0 and job.ray.joined_address is None


def examined(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What a check finds; a mistake that it meets is a finding, too."""
    try:
        return list(check())
    except PlinthError as error:
        return [Finding(name, Level.bad, error.problem, fix=error.fix)]


def _sizes(job: ExaminedJob) -> Iterable[Finding]:
    sizes = kinds.sizes_of(job)
    low, high = max(1, job.fit.workers.min), max(1, job.fit.workers.max)
    passed_over = [size for size in range(low, high + 1) if size not in sizes]
    also = f"; of {low} to {high}, {passed_over} would not and are never chosen" if passed_over else ""
    yield Finding("workers", Level.ok, f"lanes and batches of all stages divide by {sizes} workers{also}")
    if high not in sizes:
        yield Finding(
            "workers", Level.warn,
            f"fit.workers.max is {high}, which does not divide: at most {sizes[-1]} work",
            "The machines beyond that stand idle.",
            "Change global_batch_size, micro_batch_size or data.lanes.",
        )  # fmt: skip
    if len(sizes) == 1 < high and low != high:
        yield Finding(
            "workers", Level.warn, f"only {sizes[0]} workers are possible, so the run cannot shrink or grow",
            "When a machine goes the run waits for another.", "Choose sizes that divide by more numbers.",
        )  # fmt: skip


def _memory(job: ExaminedJob, cluster: Cluster | None) -> Iterable[Finding]:
    sizes = kinds.sizes_of(job)
    fewest, most = sizes[0], sizes[-1]
    made = kinds.planned(job, fewest, most, cluster)
    gpu = cluster.train.gpu if cluster and cluster.train else None
    of_machine = machine.memory_bytes()
    for stage in made.stages:
        needed = next(zero.memory.peak for zero in stage.zero if zero.stage == job.zero.stage)
        room = gpu.memory_bytes if gpu else of_machine // most
        yield _room(f"{stage.name}, {counted(most, 'worker')}", needed, room, Level.bad)
        if fewest < most:  # each then holds a larger share, and more of a machine without GPUs is its own
            room = gpu.memory_bytes if gpu else of_machine // fewest
            yield _room(f"{stage.name}, {counted(fewest, 'worker')}", stage.peak_at_fewest, room, Level.warn)


def _memory_unless_small(job: PretrainJob) -> Iterable[Finding]:
    """The same of a job that shall start now, with no word of one that fits by far."""
    sizes = kinds.sizes_of(job)
    most, room = at_most(job, sizes), [MEMORY_MARGIN * (machine.memory_bytes() // n) for n in sizes]
    is_small = most is not None and all(held < limit for held, limit in zip(most, room, strict=True))
    return () if is_small else _memory(job, None)


def _room(who: str, needed: int, room: int, worst: Level) -> Finding:
    share = needed / room
    return Finding(
        "memory", Level.ok if share < MEMORY_MARGIN else worst,
        f"{who}: about {needed / GIB:.1f} of {room / GIB:.1f} GiB per worker ({share:.0%})",
        "The worker will be killed, or the GPU runs out of memory.",
        "Lower micro_batch_size, or raise zero.stage or fit.workers.min.",
    )  # fmt: skip
