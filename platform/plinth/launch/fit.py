"""Run the stages of a job on workers: Ray Train, or this process alone.

A worker trains all stages one after the other (`plinth.train.loop`). Which stage it is in and how far is
in the run's storage, so starting a job again, by hand or by Ray after a worker was lost, resumes it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from plinth.engine import process
from plinth.errors import ConfigError
from plinth.launch.config import FitConfig
from plinth.storage import Storage
from plinth.train import attempt as attempts
from plinth.train.control import Control, on_stop_signals
from plinth.train.loop import StageEnd, run_stage
from plinth.train.stage_run import StageRun, preflight
from plinth.world import possible_world_sizes

if TYPE_CHECKING:
    from plinth.launch.placement import TrialPlacement


def fit(
    config: FitConfig,
    stages: Sequence[StageRun],
    storage: Storage,
    stop: threading.Event | None = None,
    placement: TrialPlacement | None = None,
) -> StageEnd:
    """Train the stages in order, resuming where the run stopped. With workers, join a Ray cluster before.

    Args:
        storage: the run's folder; Ray Train keeps its own state below it.
        stop: when it is set, the run saves and ends, as on SIGTERM or Ctrl-C.
        placement: resources to train in that are already reserved (a trial of a sweep).

    Returns:
        The numbers of the last step that was trained, and whether the run was told to stop before its end.

    Raises:
        PlinthError: a mistake in the job, before anything starts or from a worker.
        WorkersLostError: workers were lost, or failed, more than `max_failures` times.
    """
    config.validate()
    sizes = possible_sizes(config, stages)
    if config.workers.max == 0:
        control = Control(stop)
        with on_stop_signals(control.request_stop):
            return train_stages(stages, storage, config, None, control)
    from plinth.launch import ray_train  # here, because importing Ray takes seconds

    train = partial(
        train_stages, stages, storage, config, config.gpus_per_worker > 0,
        label=placement.label if placement is not None else "",
    )  # fmt: skip
    return ray_train.RayRun(config, sizes, storage, stages[0].run_id).fit(train, stop, placement)


def possible_sizes(config: FitConfig, stages: Sequence[StageRun]) -> list[int]:
    """Numbers of workers that divide the lanes and the batch of every stage, within the job's range.

    Raises:
        PlinthError: there is none, or another mistake in a stage.
    """
    low, high = max(1, config.workers.min), max(1, config.workers.max)
    for run in stages:
        preflight(run, low if low == high else 1)
    every = set(range(1, max(run.data.lanes for run in stages) + 1))
    for run in stages:
        every &= set(possible_world_sizes(run.data.lanes, run.global_batch_size, run.micro_batch_size))
    sizes = sorted(size for size in every if low <= size <= high)
    if not sizes:
        raise ConfigError(
            f"No number of workers from {low} to {high} divides lanes and micro-batches of all stages.",
            f"Possible are {sorted(every)}.",
        )
    return sizes


def train_stages(
    stages: Sequence[StageRun], storage: Storage, config: FitConfig, use_gpu: bool | None, control: Control,
    label: str = "",
) -> StageEnd:  # fmt: skip
    """What a worker does; see `plinth.engine.process.start` for the GPU and the label."""
    started = process.start(config.threads_per_worker, use_gpu, label, config.deterministic_kernels)
    end = StageEnd()
    first = stages[0]
    with attempts.begin(started, storage, first.run_id, control, first.metrics.logs_every_s) as attempt:
        for run in stages:
            this = run_stage(run, started, control, attempt)
            end = this if this.summary else end
            if this.is_stopped:
                break
    return end
