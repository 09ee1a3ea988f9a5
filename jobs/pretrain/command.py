"""`poma pretrain`: the warm-up, then the main stage from the warm-up's weights, as one job.

    output/name/
      config.yaml             the resolved job
      data.json               the versions of the data sets that it reads (`jobs.pretrain.data_versions`)
      run.json LOCK.json      the run's identity; who is writing it (FENCE.json: who did last)
      warmup/ main/           each: checkpoints/ metrics.jsonl tensorboard/ incidents/

The same command again resumes inside whichever stage it was in, on as many workers as there are now.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from jobs.common.cluster import ray_cluster
from jobs.common.run_layout import CONFIG_KEY, run_storage
from jobs.doctor import command as doctor
from jobs.jobfile import asked, with_others
from jobs.pretrain.check import check
from jobs.pretrain.config import PretrainJob
from jobs.pretrain.launch import launch
from jobs.pretrain.resolve import check_settings, resolve
from jobs.pretrain.told import missing_terms, target_way
from plinth.config import MissingValues
from plinth.errors import STOPPED_EXIT_CODE, raise_together
from plinth.observe.terminal import log_to_terminal

if TYPE_CHECKING:
    from plinth.launch.beside import BesideJob


def run(arguments: argparse.Namespace) -> int:
    """Read the job, resolve it, check it, launch it; returns the exit code."""
    job = _asked(arguments)
    log_to_terminal()
    raise_together([partial(doctor.refuse_no_room, job), partial(check_settings, job)])
    checked = check(job, resolve(job, arguments.accept_changes))
    print(f"job: {run_storage(job).uri}/{CONFIG_KEY}")
    for line in doctor.before_a_run(job):
        print(line)
    for line in missing_terms(job, checked.stages):
        print(line)
    with ray_cluster(job.ray, job.fit.workers.max, saves_on_sigterm=True):
        end = launch(job, checked, beside=_beside(job))
    if end.is_stopped:
        print(f"{run_storage(job).uri}: stopped as asked; the same command resumes from there")
        return STOPPED_EXIT_CODE
    for line in target_way(job, checked.stages):
        print(line)
    print(f"{run_storage(job).uri}: done")
    return 0


def _beside(job: PretrainJob) -> BesideJob | None:
    if job.evaluate_beside is None:
        return None
    from jobs.pretrain.beside import beside  # here: it imports what evaluates

    return beside(job)


def _asked(arguments: argparse.Namespace) -> PretrainJob:
    """The job. Where values are missing, its other mistakes are said with them."""
    try:
        return asked(PretrainJob, arguments)
    except MissingValues as error:
        if error.rest is not None:
            with_others(error, [partial(check_settings, error.rest)])
        raise
