"""`poma plan JOB`: memory, time, storage and cost of a job that trains, before it starts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeVar

from jobs.demo.config import DemoJob
from jobs.finetune.config import FinetuneJob
from jobs.finetune.llm.config import FinetuneLlmJob
from jobs.jobfile import JobFile, command_of, read
from jobs.plan import report as plan_report
from jobs.plan.estimate import DEFAULT_MFU, plan
from jobs.plan.machines import Cluster, read_cluster
from jobs.pretrain.config import PretrainJob
from jobs.sweep.config import SweepJob
from jobs.sweep.pretraining import pretrain_job
from plinth.config import MissingValues
from plinth.errors import ConfigError
from plinth.schema import MISSING

PLANNED = (PretrainJob.kind, FinetuneJob.kind, FinetuneLlmJob.kind, SweepJob.kind, DemoJob.kind)
"""Kinds of jobs that have a plan."""
T = TypeVar("T")


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
            "`poma plan` covers pretraining, finetuning, sweeps of pretraining and the demo.",
        )
    mfu = DEFAULT_MFU if arguments.mfu is None else arguments.mfu
    if file.kind in (FinetuneJob.kind, FinetuneLlmJob.kind):
        print(_of_tuning(file, arguments, cluster, mfu))
        return 0
    if file.kind == SweepJob.kind:
        sweep = file.resolve(SweepJob, arguments.overrides)
        print(plan_report.text(plan(pretrain_job(sweep), cluster, mfu, arguments.assume)))
        print(
            f"\nThis is one trial of full length; the sweep has {sweep.sweep.trials}, and its scheduler "
            f"({sweep.sweep.scheduler.kind.value}) may end most of them early."
        )
        return 0
    job = _of_demo(file, arguments) if file.kind == DemoJob.kind else _of_pretraining(file, arguments)
    print(plan_report.text(plan(job, cluster, mfu, arguments.assume)))
    return 0


def _of_tuning(file: JobFile, arguments: argparse.Namespace, cluster: Cluster | None, mfu: float) -> str:
    # Here: they import transformers, which other plans do without.
    if file.kind == FinetuneJob.kind:
        from jobs.plan import heads

        head = _as_far(file, FinetuneJob, arguments)
        return plan_report.text_of_tuning(heads.plan(head, cluster, mfu, arguments.assume))
    from jobs.plan import language

    model = _as_far(file, FinetuneLlmJob, arguments)
    return plan_report.text_of_tuning(language.plan(model, cluster, mfu, arguments.assume))


def _of_pretraining(file: JobFile, arguments: argparse.Namespace) -> PretrainJob:
    job = _as_far(file, PretrainJob, arguments)
    if job.teacher.source == MISSING:
        return file.resolve(PretrainJob, arguments.overrides)
    return job


def _as_far(file: JobFile, schema: type[T], arguments: argparse.Namespace) -> T:
    """A job, also where it does not say yet what a plan can do without: where data and runs are, and commits
    of models."""
    try:
        return file.resolve(schema, arguments.overrides)
    except MissingValues as error:
        if not isinstance(error.rest, schema):
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
