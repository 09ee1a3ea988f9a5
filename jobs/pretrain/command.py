"""`poma pretrain`: the warm-up, then the main stage from the warm-up's weights, as one job.

    output/name/
      config.yaml             the resolved job
      data.json               the versions of the data sets that it reads (`jobs.pretrain.data_versions`)
      run.json LOCK.json      the run's identity; who is writing it
      warmup/ main/           each: checkpoints/ metrics.jsonl tensorboard/ incidents/

The same command again resumes inside whichever stage it was in, on as many workers as there are now.
"""

from __future__ import annotations

import argparse

from jobs.common.cluster import ray_cluster
from jobs.jobfile import asked
from jobs.pretrain.check import check
from jobs.pretrain.config import PretrainJob
from jobs.pretrain.launch import launch
from jobs.pretrain.resolve import resolve, run_storage
from jobs.pretrain.told import missing_terms, target_way
from plinth import config
from plinth.engine.process import log_to_terminal
from plinth.errors import STOPPED_EXIT_CODE


def run(arguments: argparse.Namespace) -> int:
    """Read the job, resolve it, check it, launch it; returns the exit code."""
    job = asked(PretrainJob, arguments)
    print(config.to_yaml(job))
    log_to_terminal()
    checked = check(job, resolve(job, arguments.accept_changes))
    for line in missing_terms(job, checked.stages):
        print(line)
    with ray_cluster(job.ray, job.fit.workers.max, saves_on_sigterm=True):
        end = launch(job, checked)
    if end.is_stopped:
        print(f"{run_storage(job).uri}: stopped as asked; the same command resumes from there")
        return STOPPED_EXIT_CODE
    for line in target_way(job, checked.stages):
        print(line)
    print(f"{run_storage(job).uri}: done")
    return 0
