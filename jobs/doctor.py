"""`poma doctor [JOB]`: what would go wrong, found in under a minute, before anything is paid for.

Every finding says what was seen, why it hurts and how to mend it. Nothing is trained and nothing is left in
storage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from jobs import doctor_machine, doctor_storage
from jobs.config import PretrainJob, load
from jobs.doctor_finding import Finding, Level
from jobs.plan import plan
from jobs.plan_machines import Cluster, read_cluster
from jobs.pretrain import stage_runs
from plinth.errors import EXIT_CODE, PlinthError
from plinth.fit import Workers, possible_sizes

GIB = 2**30
USUAL_START_S = 300.0
"""What a cloud takes to give a GPU node and start its container; more when it is short of them."""
MEMORY_MARGIN = 0.9
"""Share of a device's memory that a plan may fill: allocators and the driver need the rest."""

Check = tuple[str, Callable[[], Iterable[Finding]]]


def run(path: Path | None, overrides: Sequence[str], cluster: Path | None) -> int:
    """Examine this machine and, if given, a job; returns the exit code."""
    began = time.monotonic()
    job = load(PretrainJob, path, overrides) if path is not None else None
    worst = Level.ok
    for name, check in checks(job, read_cluster(cluster) if cluster else None):
        for finding in examined(name, check):
            worst = max(worst, finding.level)
            print(finding.text(), flush=True)
    print(f"{worst.name.upper()} after {time.monotonic() - began:.0f} s")
    return EXIT_CODE if worst is Level.bad else 0


def checks(job: PretrainJob | None, cluster: Cluster | None) -> list[Check]:
    """What is examined, in order."""
    always: list[Check] = [
        ("packages", doctor_machine.packages),
        ("ring", doctor_machine.ring),
    ]
    if job is None:
        return always
    return [
        ("workers", partial(_sizes, job)),
        ("machine", partial(doctor_machine.machine, job)),
        ("storage", partial(doctor_storage.storage, job)),
        ("data", partial(doctor_storage.data, job)),
        ("memory", partial(_memory, job, cluster)),
        ("time-outs", partial(_time_outs, job, cluster)),
        ("nodes", partial(doctor_machine.nodes, job)),
        *always,
    ]


def examined(name: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What a check finds; a mistake that it meets is a finding, too."""
    try:
        return list(check())
    except PlinthError as error:
        return [Finding(name, Level.bad, error.problem, fix=error.fix)]


def _sizes(job: PretrainJob) -> Iterable[Finding]:
    sizes = possible_sizes(job.fit, stage_runs(job))
    low, high = max(1, job.fit.workers.min), max(1, job.fit.workers.max)
    yield Finding("workers", Level.ok, f"lanes and batches of all stages divide by {sizes} workers")
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


def _memory(job: PretrainJob, cluster: Cluster | None) -> Iterable[Finding]:
    most = possible_sizes(job.fit, stage_runs(job))[-1]
    made = plan(replace(job, fit=replace(job.fit, workers=Workers(most, most))), cluster, 1.0, [])
    room = cluster.train.gpu.memory_bytes if cluster and cluster.train and cluster.train.gpu else None
    if room is None:
        room = doctor_machine.memory_bytes() // most
    for stage in made.stages:
        needed = next(zero.memory.peak for zero in stage.zero if zero.stage == job.zero.stage)
        share = needed / room
        level = Level.ok if share < MEMORY_MARGIN else Level.bad
        yield Finding(
            "memory", level,
            f"{stage.name}: about {needed / GIB:.1f} of {room / GIB:.1f} GiB a worker ({share:.0%})",
            "" if level is Level.ok else "The worker will be killed, or the GPU runs out of memory.",
            "" if level is Level.ok else "Lower micro_batch_size, or raise zero.stage.",
        )  # fmt: skip


def _time_outs(job: PretrainJob, cluster: Cluster | None) -> Iterable[Finding]:
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
