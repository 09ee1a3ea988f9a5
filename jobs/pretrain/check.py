"""What a resolved job is refused for, before anything starts or is written."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.pretrain.config import PretrainJob
from plinth.launch import check as runs
from plinth.launch.check import CheckedRun
from plinth.train.resolve import ResolvedStage


def check(job: PretrainJob, stages: Sequence[ResolvedStage]) -> CheckedRun:
    """Find every mistake that can be found before anything starts or is written.

    Raises:
        PlinthError: the first one.
    """
    job.lock.validate()
    return runs.check(job.fit, stages)
