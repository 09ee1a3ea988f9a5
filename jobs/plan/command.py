"""`poma plan JOB`: memory, time, storage and cost of a pretraining job, before it starts."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.demo.config import DemoJob
from jobs.jobfile import JobFile, command_of, read
from jobs.plan import report as plan_report
from jobs.plan.estimate import DEFAULT_MFU, plan
from jobs.plan.machines import read_cluster
from jobs.pretrain.config import PretrainJob
from jobs.sweep.config import SweepJob
from jobs.sweep.pretraining import pretrain_job
from plinth.config import MissingValues
from plinth.errors import ConfigError
from plinth.schema import MISSING

PLANNED = (PretrainJob.kind, SweepJob.kind, DemoJob.kind)
"""Kinds of jobs that have a plan."""


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; returns the exit code.

    Raises:
        PlinthError: a job, cluster file or option that cannot be.
    """
    cluster = read_cluster(arguments.cluster, arguments.prices) if arguments.cluster else None
    file = read(arguments.job)
    if file.kind not in PLANNED:
        raise ConfigError(
            f"{file.path} is a job for `poma {command_of(file.kind)}`, which has no plan.",
            "`poma plan` covers pretraining, its sweeps and the demo.",
        )
    mfu = DEFAULT_MFU if arguments.mfu is None else arguments.mfu
    if file.kind == SweepJob.kind:
        sweep = file.resolve(SweepJob, arguments.overrides)
        print(plan_report.text(plan(pretrain_job(sweep), cluster, mfu, arguments.assume)))
        print(
            f"\nThis is one trial of full length; the sweep has {sweep.sweep.trials}, and its scheduler "
            f"({sweep.sweep.scheduler.kind.value}) may end most of them early."
        )
        return 0
    job = _of_demo(file, arguments) if file.kind == DemoJob.kind else _as_far(file, arguments)
    print(plan_report.text(plan(job, cluster, mfu, arguments.assume)))
    return 0


def _as_far(file: JobFile, arguments: argparse.Namespace) -> PretrainJob:
    """A pretraining job, also where it does not say yet what a plan can do without: where data, teacher's
    commit and runs are."""
    try:
        return file.resolve(PretrainJob, arguments.overrides)
    except MissingValues as error:
        if not isinstance(error.rest, PretrainJob) or error.rest.teacher.source == MISSING:
            raise
        return error.rest


def _of_demo(file: JobFile, arguments: argparse.Namespace) -> PretrainJob:
    """The pretraining inside a demo.

    Raises:
        ConfigError: its teacher, which the demo trains, is not there yet.
    """
    job = file.resolve(DemoJob, arguments.overrides).pretrain
    if not Path(job.teacher.source).is_dir():
        raise ConfigError(
            f"The demo's teacher, {job.teacher.source}, is not there yet.",
            "Run `make demo` (or `poma demo`) once; it makes rooms and teacher first.",
        )
    return job
