"""The worker's side of Ray Train: what runs in each worker, and the actor that all of them ask.

driver --request_stop, request_resize--> Coordinator <--requests-- rank 0 --all-reduce--> all ranks
workers --report_error, add_report, wait_for_shutdown--> Coordinator
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import ray
import ray.train

from plinth import ray_internals
from plinth.errors import PlinthError, StorageError
from plinth.every import Every
from plinth.train.control import Control
from plinth.train.loop import StageEnd

POLL_S = 0.5

Train = Callable[[Control], StageEnd]
"""What a worker does, given its control."""


class Coordinator:
    """An actor beside the workers: keeps their first error, and what is requested of all of them.

    Args:
        launched: the driver's start time (`time.time()`).
    """

    def __init__(self, launched: float) -> None:
        self._error: PlinthError | None = None
        self._stop = self._resize = False
        self._waiting: set[int] = set()
        self._workers = 0
        self._launched: float | None = launched
        self._reports: list[dict[str, Any]] = []

    def report_error(self, error: PlinthError) -> None:
        """Keep a worker's error, if it is the first one."""
        self._error = self._error or error

    def error(self) -> PlinthError | None:
        return self._error

    def register(self, rank: int, world_size: int) -> tuple[bool, float | None]:
        """A worker has started. Returns whether an earlier error makes it exit at once, and the driver's
        start time, once, to the first rank 0: starting Ray belongs to the first attempt."""
        self._workers = world_size
        self._waiting.clear()
        launched = None
        if rank == 0:
            launched, self._launched = self._launched, None
        return self._error is not None, launched

    def add_report(self, summary: dict[str, Any]) -> None:
        self._reports.append(summary)

    def take_reports(self) -> list[dict[str, Any]]:
        """The reports since the last call."""
        reports, self._reports = self._reports, []
        return reports

    def request_stop(self) -> None:
        """Ask the run to save and exit."""
        self._stop = True

    def request_resize(self) -> None:
        """Ask the workers to save at their next checkpoint and wait to be restarted."""
        self._resize = True

    def clear_resize(self) -> None:
        """A new group of workers is about to start, or the resize was cancelled."""
        self._resize = False
        self._waiting.clear()

    def requests(self) -> tuple[bool, bool]:
        """Whether to stop, whether to resize."""
        return self._stop, self._resize

    def wait_for_shutdown(self, rank: int) -> None:
        """A worker has saved and waits."""
        self._waiting.add(rank)

    def all_waiting(self) -> bool:
        return bool(self._waiting) and len(self._waiting) >= self._workers


class RayControl(Control):
    """A Ray Train worker's control: the coordinator's requests, polled by rank 0, and preemption notices."""

    def __init__(self, coordinator: Any) -> None:
        super().__init__()
        context = ray.train.get_context()
        self._coordinator, self._rank = coordinator, context.get_world_rank()
        self._resize = threading.Event()
        registered = coordinator.register.remote(self._rank, context.get_world_size())
        self.must_exit, launched = ray.get(registered)
        self._launched = launched or self._launched
        self._polling: Every | None = None
        if self._rank == 0:
            self._polling = Every(POLL_S, self._poll, "the coordinator does not answer")

    def resize_wanted(self) -> bool:
        return self._resize.is_set()

    def deadline(self) -> float | None:
        return ray_internals.preemption_deadline()

    def report(self, summary: dict[str, Any]) -> None:
        ray.train.report(summary)
        if self._rank == 0:
            ray.get(self._coordinator.add_report.remote(summary))

    def wait_for_shutdown(self, limit_s: float) -> None:
        ray.get(self._coordinator.wait_for_shutdown.remote(self._rank))
        self._resize.clear()
        time.sleep(limit_s)  # Ray ends this process meanwhile; otherwise the run continues at its size

    def close(self) -> None:
        """Stop polling."""
        if self._polling is not None:
            self._polling.stop()

    def _poll(self) -> None:
        try:
            stop, resize = ray.get(self._coordinator.requests.remote())
        except ray.exceptions.RayError:
            self.close()  # the run is over
            return
        if stop:
            self.request_stop()
        if resize:
            self._resize.set()
        else:
            self._resize.clear()


def work(train: Train, coordinator: Any) -> StageEnd:
    """Runs in every worker of Ray Train.

    A user's mistake would be the same in every attempt, so it is not tried again: the worker that met it
    tells the coordinator and fails, which ends the others too; the workers of Ray's next attempt find it
    there and exit.
    """
    ray_internals.quiet_reports()
    control = RayControl(coordinator)
    if control.must_exit:
        return StageEnd()
    try:
        return train(control)
    except StorageError:
        raise  # the network may be back at the next attempt
    except PlinthError as error:
        ray.get(coordinator.report_error.remote(error))
        raise
    finally:
        control.close()
