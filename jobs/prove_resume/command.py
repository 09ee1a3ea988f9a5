"""`poma prove-resume`: kill it, resize it, same result, shown on the user's own job.

The job is shortened and run straight, then again with faults: a worker killed in the middle of a step,
another in the middle of an upload, the driver killed, the number of workers changed. Every run goes through
`jobs.pretrain.launch` as the real one does; drivers are processes of their own, workers are Ray Train's. Then
batches, losses and the whole last checkpoint of each are compared with the straight run's.
"""

from __future__ import annotations

import argparse
import logging
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jobs.common.cluster import ray_cluster
from jobs.common.ray_config import RayConfig
from jobs.common.run_layout import run_storage
from jobs.pretrain.check import check
from jobs.pretrain.launch import launch
from jobs.prove_resume.arguments import KILLED_DRIVER, KILLED_RANK, KILLED_UPLOAD, RESIZED
from jobs.prove_resume.compare import Comparison, compare, read_result
from jobs.prove_resume.faults import Action, Fault, with_faults
from jobs.prove_resume.kinds import TrainingJob, cut, load, resolve, stage_names, with_stages
from jobs.prove_resume.page import table, write_page
from plinth.errors import EXIT_CODE, STOPPED_EXIT_CODE, ConfigError, PlinthError
from plinth.launch.check import possible_sizes
from plinth.launch.config import Workers
from plinth.observe.config import OnBadStep
from plinth.storage import Storage
from plinth.train.control import STOP_SIGNALS

STRAIGHT = "straight"
STRAIGHT_WORKERS = 2
RESIZES = (2, 1, 4, 2)
PHASE_LIMIT_S = 900.0
POLL_S = 0.2
SPARE_CPUS = 2


@dataclass(frozen=True)
class Phase:
    """One driver process, from its start to its end."""

    workers: int
    faults: tuple[Fault, ...] = ()
    ends_by: signal.Signals | None = None
    """What the driver gets when the last fault goes off; None lets it run to its end."""


@dataclass(frozen=True)
class Scenario:
    """A run of the job and what happens to it."""

    name: str
    text: str
    phases: tuple[Phase, ...]
    must_be_identical: bool = True
    """Whether the result must be the same bit by bit."""


@dataclass
class Proof:
    """What was found."""

    comparisons: list[Comparison] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def run(arguments: argparse.Namespace) -> int:
    """Run all scenarios, print the table, write the page; returns the exit code."""
    folder = arguments.folder
    job = load(arguments.job, arguments.overrides, folder)
    job = shortened(job, folder, arguments.steps, arguments.every)
    proof = prove(job, arguments.only)
    page = write_page(Path(folder), job, proof.comparisons, proof.seconds)
    print("\n" + table(proof.comparisons))
    print(f"page: {page}")
    return 0 if all(c.holds for c in proof.comparisons) else EXIT_CODE


def shortened(job: TrainingJob, folder: str, steps: int, every: int) -> TrainingJob:
    """The job with short stages, a checkpoint every few steps, all of them kept.

    Raises:
        ConfigError: too short to be cut anywhere.
    """
    if not 2 <= every < steps:
        raise ConfigError(f"--every is {every} and --steps is {steps}.", "Give 2 <= every < steps.")

    return replace(
        with_stages(job, lambda stage: cut(stage, steps)),
        output=str(Path(folder).absolute()),
        checkpoint=replace(job.checkpoint, every_steps=every, keep_last=0),
        guard=replace(job.guard, on_bad_step=OnBadStep.stop),
        lock=replace(job.lock, dead_after_s=4 * job.lock.beat_every_s),
        metrics=replace(job.metrics, sinks=[]),  # trackers are for the user's own runs
    )


def prove(job: TrainingJob, only: Sequence[str]) -> Proof:
    """Run the scenarios one after the other on one cluster; each that is finished is not run again.

    Args:
        only: names of those that are run beside the straight one.

    Raises:
        ConfigError: none of them is possible.
        PlinthError: a run did not end as it should.
    """
    first = replace(job, name=STRAIGHT)
    sizes = possible_sizes(resolve(first), 1, max(RESIZES))
    wanted = [scenario for scenario in scenarios(job, sizes) if scenario.name in (STRAIGHT, *only)]
    if len(wanted) == 1:
        raise ConfigError(
            f"--only is {' '.join(only)}, and the job's batches divide over {sizes[0]} worker alone.",
            "Name another scenario, or lower the micro batch sizes.",
        )
    proof = Proof()
    with ray_cluster(_room(job), 1):
        import ray

        ray_config = replace(job.ray, address=ray.get_runtime_context().gcs_address)
        expected = None
        for scenario in wanted:
            began = time.monotonic()
            this = replace(job, name=scenario.name, ray=ray_config)
            print(f"{scenario.name}: {scenario.text}", flush=True)
            for number, phase in enumerate(scenario.phases):
                _run_phase(this, phase, Path(job.output) / f"{scenario.name}-{number}.log")
            result = read_result(run_storage(this))
            proof.seconds[scenario.name] = time.monotonic() - began
            if expected is None:
                expected = result
            else:
                proof.comparisons.append(
                    compare(scenario.name, scenario.text, expected, result, scenario.must_be_identical)
                )
    return proof


def scenarios(job: TrainingJob, sizes: Sequence[int]) -> list[Scenario]:
    """The straight run and those with faults, as far as the job's sizes allow."""
    stages = stage_names(job)
    usual = max(size for size in sizes if size <= STRAIGHT_WORKERS)
    cut = job.checkpoint.every_steps + job.checkpoint.every_steps // 2
    last = usual - 1
    kills = tuple(Fault(f"kill-{s}", Action.kill_rank, s, cut, last) for s in stages)
    upload = (Fault("upload", Action.kill_in_upload, stages[-1], 1, 0),)
    found = [
        Scenario(STRAIGHT, f"{usual} workers, nothing happens", (Phase(usual),)),
        Scenario(KILLED_RANK, "kill -9 of a worker in mid-step, in each stage", (Phase(usual, kills),)),
        Scenario(KILLED_UPLOAD, "kill -9 of a worker in the middle of an upload", (Phase(usual, upload),)),
        Scenario(
            KILLED_DRIVER,
            "kill -9 of the driver, and the same command again",
            (Phase(usual, (Fault("driver", Action.hold, stages[-1], cut),), signal.SIGKILL), Phase(usual)),
        ),
    ]
    walk = [size for size in RESIZES if size in sizes]
    if len(set(walk)) > 1:
        where = [stages[0]] * 2 + [stages[-1]] * len(walk)
        phases = [
            Phase(size, (Fault(f"size-{i}", Action.hold, where[i], 2),), STOP_SIGNALS[i % len(STOP_SIGNALS)])
            for i, size in enumerate(walk[:-1])
        ]
        text = "stopped and started again with " + " -> ".join(map(str, walk)) + " workers"
        found.append(
            Scenario(RESIZED, text, (*phases, Phase(walk[-1])), must_be_identical=job.zero.adds_exactly)
        )
    return found


def _room(job: TrainingJob) -> RayConfig:
    """A local Ray that takes the most workers of all scenarios, however few cores there are."""
    needed = math.ceil(max(RESIZES) * job.fit.cpus_per_worker) + SPARE_CPUS
    return replace(job.ray, num_cpus=max(needed, os.cpu_count() or 1))


def _run_phase(job: TrainingJob, phase: Phase, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    job = replace(job, fit=replace(job.fit, workers=Workers(phase.workers, phase.workers)))
    driver = multiprocessing.get_context("spawn").Process(
        target=_drive, args=(job, phase.faults, str(log)), name=f"driver of {job.name}"
    )
    driver.start()
    try:
        if phase.ends_by is not None:
            _wait_for(run_storage(job), phase.faults[-1], driver)
            os.kill(driver.pid or 0, phase.ends_by)
        driver.join(PHASE_LIMIT_S)
        expected: dict[signal.Signals | None, int] = {None: 0, signal.SIGKILL: -signal.SIGKILL}
        expected |= dict.fromkeys(STOP_SIGNALS, STOPPED_EXIT_CODE)
        if driver.exitcode != expected[phase.ends_by]:
            raise PlinthError(
                f"{job.name}: the driver ended with {driver.exitcode}, expected {expected[phase.ends_by]}.",
                f"Its log: {log}",
            )
    finally:
        if driver.is_alive():
            driver.kill()
            driver.join()


def _wait_for(storage: Storage, fault: Fault, driver: multiprocessing.process.BaseProcess) -> None:
    deadline = time.monotonic() + PHASE_LIMIT_S
    while not storage.exists(fault.key):
        if not driver.is_alive() or time.monotonic() > deadline:
            raise PlinthError(f"The run never came to {fault.stage}, step {fault.after_steps}.")
        time.sleep(POLL_S)


def _drive(job: TrainingJob, faults: Sequence[Fault], log: str) -> None:
    """A driver process: what `poma pretrain` does, with faults."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    logging.basicConfig(stream=sys.stderr)
    try:
        stages = with_faults(resolve(job), faults, run_storage(job))
        with ray_cluster(job.ray, 1):
            end = launch(job, check(job, stages))
    except PlinthError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_CODE)
    sys.exit(STOPPED_EXIT_CODE if end.is_stopped else 0)
