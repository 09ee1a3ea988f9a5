"""`poma profile JOB`: where the time and the memory of its steps go, on the path that the job takes.

    FOLDER/
      profile.html                the largest costs, a table of parts, memory over time
      STAGE.trace.json.gz         a few steps for https://ui.perfetto.dev
      STAGE.json                  the numbers of the page

The job, shortened, runs as a run of its own below FOLDER, which is removed when it has ended or was stopped:
the job's own run and its checkpoints are not touched. What an earlier profile left in FOLDER goes first.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

from jobs.common.cluster import ray_cluster
from jobs.common.run_layout import run_storage
from jobs.pretrain.check import check
from jobs.pretrain.launch import launch
from jobs.profile.page import PAGE, StageCosts, costs, page, text
from jobs.prove_resume.kinds import TrainingJob, cut, load, resolve, stage_names, with_stages
from plinth.errors import STOPPED_EXIT_CODE, ConfigError
from plinth.locations import absolute
from plinth.observe.config import OnBadStep
from plinth.observe.terminal import log_to_terminal
from plinth.storage import MissingKeyError, Storage
from plinth.train.profile import NUMBERS, TRACE
from plinth.train.resolve import ProfileSpec
from plinth.units import counted

LEAST_SKIPPED = 4
"""Steps before the measured ones: the first three are checked for replays, and fill caches."""


def run(arguments: argparse.Namespace) -> int:
    """Run the shortened job, print the table, write the page; returns the exit code."""
    for flag in ("steps", "traced"):
        if (value := getattr(arguments, flag)) < 1:
            raise ConfigError(f"--{flag} is {value}, expected 1 or more.")
    job = load(arguments.job, arguments.overrides, arguments.folder)
    log_to_terminal()
    # The checkpoint is in the middle of the measured steps, and the next one is after all of them.
    skipped = max(LEAST_SKIPPED, arguments.traced + 1)
    short = shortened(job, arguments.folder, skipped, arguments.steps, arguments.traced)
    results = Storage.from_uri(short.output, short.storage)
    spec = ProfileSpec(results, skipped, arguments.steps, arguments.traced)
    stages = [replace(stage, profile=spec) for stage in resolve(short)]
    checked = check(short, stages)
    for key in (PAGE, *(name + ending for name in stage_names(job) for ending in (NUMBERS, TRACE))):
        results.delete(key)
    print(
        f"profile of {counted(len(stages), 'stage')}, {spec.steps} steps each, in {results.uri}", flush=True
    )
    with ray_cluster(short.ray, short.fit.workers.max, saves_on_sigterm=True):
        end = launch(short, checked)
    _remove(run_storage(short))
    if end.is_stopped:
        print(f"{results.uri}: stopped as asked; there is no page")
        return STOPPED_EXIT_CODE
    found = [_read(results, name, job.checkpoint.every_steps) for name in stage_names(job)]
    results.write(PAGE, page(job, found).encode())
    for stage in found:
        print("\n" + text(stage))
    print(f"\npage: {results.uri}/{PAGE}")
    print(f"traces for https://ui.perfetto.dev: {results.uri}/*{TRACE}")
    return 0


def shortened(job: TrainingJob, folder: str, skipped: int, measured: int, traced: int) -> TrainingJob:
    """The job with stages of so many steps and one checkpoint among the measured ones, in `folder`."""
    return absolute(
        replace(
            with_stages(job, lambda stage: cut(stage, skipped + measured + traced)),
            name=f"run-{int(time.time())}",
            output=folder,
            checkpoint=replace(job.checkpoint, every_steps=skipped + measured // 2, keep_last=1),
            guard=replace(job.guard, on_bad_step=OnBadStep.stop),
            metrics=replace(job.metrics, sinks=[]),  # trackers are for the user's own runs
        )
    )


def _read(results: Storage, name: str, every_steps: int) -> StageCosts:
    """What the run wrote down about a stage.

    Raises:
        ConfigError: nothing: a worker was lost, and the run went on from its checkpoint, unmeasured.
    """
    try:
        return costs(json.loads(results.read(name + NUMBERS)), every_steps)
    except MissingKeyError as error:
        raise ConfigError(
            f"{name} was interrupted, so it was not measured to its end.", "Run the command again."
        ) from error


def _remove(run: Storage) -> None:
    """The shortened run: its checkpoints are as large as the job's own."""
    for key, _ in run.list():
        run.delete(key)
    if run.is_local:
        shutil.rmtree(Path(run.root), ignore_errors=True)
