"""One start of a group of workers: what its ranks share, and the files that outlive it."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from plinth.digests import text_digest
from plinth.engine.process import Process, on_all_ranks
from plinth.errors import StorageError
from plinth.observe.failures import (
    ATTEMPT_TIME,
    FOLDER,
    attempts_of,
    by_attempt,
    first_cause,
    read_failures,
)
from plinth.observe.rank_logs import RankLog, salvage
from plinth.storage import Storage, scratch
from plinth.train.control import Control

log = logging.getLogger(__name__)


@dataclass
class Attempt:
    """One start of a group of workers, on this rank."""

    id: str
    storage: Storage
    """The run's folder."""
    rank_log: RankLog
    stage_started: float
    """When the stage that is under way began (`time.time()`); for the first, the attempt."""


@contextmanager
def begin(
    process: Process, storage: Storage, run_id: str, control: Control, logs_every_s: float
) -> Iterator[Attempt]:
    """An attempt, from here to its end on this rank; what processes before it left on this machine is
    brought to storage. Call it on all ranks.

    Args:
        storage: the run's folder.
        run_id: tells the run from an earlier one in the same folder, whose logs may still be on this disk.
        logs_every_s: seconds between two copies of this rank's logs to storage.
    """
    came = time.strftime(ATTEMPT_TIME, time.gmtime())
    launched = control.launched()
    proposals = on_all_ranks(process.world, lambda: (f"{came}-{uuid.uuid4().hex[:6]}", launched))
    attempt_id = proposals[0][0]
    folder = local_folder(storage, run_id)
    on_all_ranks(process.world, lambda: scratch.claim(folder))
    salvage(folder, storage)
    if process.world.rank == 0:
        _tell_of_the_last(storage)
    try:
        with RankLog(folder, attempt_id, process.world.rank) as rank_log:
            rank_log.keep_copied(storage, logs_every_s)
            yield Attempt(attempt_id, storage, rank_log, min(began for _, began in proposals))
    finally:
        salvage(folder, storage)


def _tell_of_the_last(storage: Storage) -> None:
    """Say why the attempt before failed, if it did: the first cause, not what followed from it."""
    try:
        failed = by_attempt(read_failures(storage))
        attempts = attempts_of(key for key, _ in storage.list(FOLDER))
    except StorageError:
        return
    if attempts and attempts[-1] in failed:
        log.warning("the attempt before failed: %s", first_cause(failed[attempts[-1]]))


def local_folder(storage: Storage, run_id: str) -> Path:
    """Where the ranks of a run keep their logs on this machine."""
    digest = text_digest(f"{storage.uri} {run_id}", 6)
    return scratch.of_user() / f"flight-{digest}"
