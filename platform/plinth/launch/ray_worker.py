"""The worker's side of Ray Train: what runs in each worker, which asks the `Coordinator`.

    driver --request_stop, request_resize--> Coordinator <--requests-- rank 0 --all-reduce--> all ranks
    workers --report_error, add_report, wait_for_shutdown, heard--> Coordinator --kill--> a rank that hangs

Rank 0 alone polls, because all ranks agree on what it heard after each step (`plinth.train.control`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import ray
import ray.train

from plinth.errors import PlinthError, StorageError
from plinth.every import Every
from plinth.launch.pulse import Sender
from plinth.ray_internals.train import preemption_deadline, quiet_reports
from plinth.train.control import Control
from plinth.train.outcome import StageEnd

POLL_S = 0.5
PULSE_EVERY_S = 1.0
CLOSE_TIMEOUT_S = 5.0

Train = Callable[[Control], StageEnd]
"""What a worker does, given its control."""


class RayControl(Control):
    """A Ray Train worker's control: the coordinator's requests, polled by rank 0, and preemption notices."""

    def __init__(self, coordinator: Any) -> None:
        super().__init__()
        context = ray.train.get_context()
        self._coordinator, self._rank = coordinator, context.get_world_rank()
        self._resize = threading.Event()
        registered = coordinator.register.remote(self._rank, context.get_world_size())
        self.must_exit, launched = ray.get(registered)
        self._launched, self._is_first = launched or self._launched, launched is not None
        self._sender = Sender(self._rank, ray.get_runtime_context().get_node_id())
        self._beating = self._started_beating()
        self._polling: Every | None = None
        if self._rank == 0:
            self._polling = Every(POLL_S, self._poll, "the coordinator does not answer")

    def is_first(self) -> bool:
        return self._is_first

    def resize_wanted(self) -> bool:
        return self._resize.is_set()

    def enters(self, doing: str, step: int | None = None, limit_s: float | None = None) -> None:
        self._sender.enters(doing, step, limit_s)

    def deadline(self) -> float | None:
        return preemption_deadline()

    def report(self, summary: dict[str, Any]) -> None:
        ray.train.report(summary)
        if self._rank == 0:
            ray.get(self._coordinator.add_report.remote(summary))

    def wait_for_shutdown(self, limit_s: float) -> None:
        self._beating.close()
        ray.get(self._coordinator.wait_for_shutdown.remote(self._rank))
        self._resize.clear()
        time.sleep(limit_s)  # Ray ends this process meanwhile; otherwise the run continues at its size
        self._beating = self._started_beating()

    def close(self) -> None:
        """Stop polling and beating: from now on this process may end."""
        if self._polling is not None:
            self._polling.stop()
        self._beating.close(CLOSE_TIMEOUT_S)
        self._coordinator.forget.remote(self._rank)

    def _started_beating(self) -> Every:
        return Every(PULSE_EVERY_S, self._beat, "signs of life cannot be sent", at_start=True)

    def _beat(self) -> None:
        self._coordinator.heard.remote(self._sender.pulse())

    def _poll(self) -> None:
        try:
            stop, resize = ray.get(self._coordinator.requests.remote())
        except ray.exceptions.RayError:
            if self._polling is not None:
                self._polling.stop()  # the run is over
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
    quiet_reports()
    control = RayControl(coordinator)
    try:
        return StageEnd() if control.must_exit else train(control)
    except StorageError:
        raise  # the network may be back at the next attempt
    except PlinthError as error:
        ray.get(coordinator.report_error.remote(error))
        raise
    finally:
        control.close()
