"""The trials of a sweep's job, whichever of the two kinds of training it is of."""

from __future__ import annotations

from jobs.sweep.config import AnySweepJob, HeadSweepJob, SweepJob
from jobs.sweep.heads import HeadTrials
from jobs.sweep.pretraining import PretrainTrials
from plinth import config
from plinth.storage import Storage
from plinth.sweep.records import JOB_KEY

AnyTrials = PretrainTrials | HeadTrials


def trials_of(job: AnySweepJob, storage: Storage) -> AnyTrials:
    """The trials of a job; `storage` is the sweep's folder."""
    return HeadTrials(job, storage) if isinstance(job, HeadSweepJob) else PretrainTrials(job, storage)


def read_trials_of(storage: Storage) -> AnyTrials:
    """The trials of the sweep in this folder, of the job that it was started with.

    Raises:
        ConfigError: its job cannot be read.
    """
    raw = config.parse(storage.read(JOB_KEY).decode(), JOB_KEY)
    origin = f"{storage.uri}/{JOB_KEY}"
    if raw.get("kind") == HeadSweepJob.kind:
        return HeadTrials(config.build(HeadSweepJob, [(origin, raw)]), storage)
    return PretrainTrials(config.build(SweepJob, [(origin, raw)]), storage)
