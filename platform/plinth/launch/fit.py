"""Run the stages of a job on workers: Ray Train, or this process alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from plinth.launch.check import CheckedRun, check
from plinth.launch.config import FitConfig
from plinth.storage import Storage
from plinth.train.control import Control, on_stop_signals
from plinth.train.outcome import StageEnd
from plinth.train.resolve import ResolvedStage

if TYPE_CHECKING:
    from plinth.launch.beside import BesideJob
    from plinth.launch.placement import TrialPlacement


def fit(
    config: FitConfig,
    stages: Sequence[ResolvedStage],
    storage: Storage,
    stop: threading.Event | None = None,
    placement: TrialPlacement | None = None,
) -> StageEnd:
    """Check the stages and train them in order; see `check` and `launch`."""
    return launch(check(config, stages), storage, stop, placement)


def launch(
    run: CheckedRun,
    storage: Storage,
    stop: threading.Event | None = None,
    placement: TrialPlacement | None = None,
    beside: BesideJob | None = None,
) -> StageEnd:
    """Train the stages in order, resuming where the run stopped. With workers, join a Ray cluster before.

    Args:
        storage: the run's folder; Ray Train keeps its own state below it.
        stop: when it is set, the run saves and ends, as on SIGTERM or Ctrl-C.
        placement: resources to train in that are already reserved (a trial of a sweep).
        beside: what is evaluated beside the training; needs workers.

    Returns:
        The numbers of the last step that was trained, and whether the run was asked to stop before its end.

    Raises:
        PlinthError: a mistake in the job that only a worker could find.
        WorkersLostError: workers were lost, or failed, more than `max_failures` times.
    """
    config = run.fit
    if config.workers.max == 0:
        control = Control(stop)
        with on_stop_signals(control.request_stop):
            return _train_stages(run.stages, storage, config, None, control)
    from plinth.launch import ray_train  # here, because importing Ray takes seconds

    train = partial(
        _train_stages, run.stages, storage, config, config.gpus_per_worker > 0,
        label=placement.label if placement is not None else "",
    )  # fmt: skip
    evaluating = None
    if beside is not None:
        from plinth.launch.beside import Beside, RayTasks

        evaluating = partial(Beside, beside.config, run.stages, storage, RayTasks(beside))
    ray_run = ray_train.RayRun(config, run.sizes, storage, run.stages[0].run_id)
    return ray_run.fit(train, stop, placement, evaluating)


def _train_stages(*arguments: Any, **named: Any) -> StageEnd:
    """`plinth.launch.worker.train_stages`. A driver that only sends it to workers need not load DeepSpeed and
    checkpoints, which costs seconds."""
    from plinth.launch.worker import train_stages

    return train_stages(*arguments, **named)
