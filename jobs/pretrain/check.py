"""What a resolved job is refused for, before anything starts or is written."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.common.run_layout import RunJob
from plinth.launch import check as runs
from plinth.launch.check import CheckedRun
from plinth.train.resolve import ResolvedStage


def check(job: RunJob, stages: Sequence[ResolvedStage]) -> CheckedRun:
    """Find every mistake that can be found before anything starts or is written.

    Raises:
        PlinthError: the first one.
    """
    job.lock.validate()
    return runs.check(job.fit, stages)
