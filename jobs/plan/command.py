"""`poma plan JOB`: memory, time, storage and cost of a pretraining job, before it starts."""

from __future__ import annotations

import argparse

from jobs.jobfile import asked
from jobs.plan import report as plan_report
from jobs.plan.estimate import DEFAULT_MFU, plan
from jobs.plan.machines import read_cluster
from jobs.pretrain.config import PretrainJob


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; returns the exit code.

    Raises:
        PlinthError: a job, cluster file or option that cannot be.
    """
    cluster = read_cluster(arguments.cluster, arguments.prices) if arguments.cluster else None
    job = asked(PretrainJob, arguments)
    mfu = DEFAULT_MFU if arguments.mfu is None else arguments.mfu
    made = plan(job, cluster, mfu, arguments.assume)
    print(plan_report.text(made))
    return 0
