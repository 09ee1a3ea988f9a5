"""Train a checked job as a run of its folder: lock, page, the job and its data versions written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.common.run_layout import CONFIG_KEY, RunJob, run_storage
from jobs.pretrain import data_versions
from jobs.runs.page import page_kept
from jobs.runs.started import record_start
from plinth import config
from plinth.launch import fit
from plinth.launch.check import CheckedRun
from plinth.locations import absolute
from plinth.storage.lock import RunLock, run_id
from plinth.train.outcome import StageEnd

if TYPE_CHECKING:
    from plinth.launch.beside import BesideJob
    from plinth.launch.placement import TrialPlacement


def launch(
    job: RunJob,
    run: CheckedRun,
    placement: TrialPlacement | None = None,
    beside: BesideJob | None = None,
) -> StageEnd:
    """Run or resume the stages on the Ray that is there (or here, with no workers).

    Args:
        placement: resources to train in that are already reserved (a trial of a sweep).
        beside: what is evaluated beside the training.

    Raises:
        ConfigError: another process is writing this run.
    """
    storage = run_storage(job)
    with page_kept(storage, job.metrics.page_every_s), RunLock(storage, job.lock) as lock:
        storage.write(CONFIG_KEY, config.to_yaml(absolute(job)).encode())  # read from other folders
        record_start(storage, job.ray, job.fit.workers.max)
        data_versions.write_pins(storage, run.stages)
        locked = run.locked(run_id(storage), lock.fence())
        return fit.launch(locked, storage, lock.stop_wanted, placement, beside)
