"""The actor through which the driver and the workers of a run talk.

In a module of its own, because the actor's process imports it: without Ray Train and torch it starts seconds
earlier and needs less memory.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from plinth.errors import PlinthError
from plinth.every import Every
from plinth.launch.pulse import Pulse, born_at
from plinth.launch.watch import LOOK_EVERY_S, Hang, Watch

if TYPE_CHECKING:
    from plinth.storage import Storage

log = logging.getLogger(__name__)


class Coordinator:
    """An actor beside the workers: keeps their first error, what is requested of all of them, and ends ranks
    that hold up the others.

    Args:
        launched: the driver's start time (`time.time()`).
        storage: the run's folder.
        silent_after_s: how long a rank may give no sign of life.
    """

    def __init__(self, launched: float, storage: Storage, silent_after_s: float) -> None:
        self._storage = storage
        self._watch = Watch(silent_after_s)
        self._lock = threading.Lock()  # pulses come in the actor's thread, looks in one of their own
        self._looking = Every(LOOK_EVERY_S, self._look, "ranks that hang cannot be found")
        self._error: PlinthError | None = None
        self._stop = self._resize = False
        self._waiting: set[int] = set()
        self._workers = 0
        self._has_started = False
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
        self._workers, self._has_started = world_size, True
        self._waiting.clear()
        self.forget(rank)
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

    def request_stop(self) -> bool:
        """Ask the run to save and exit. Returns whether there are workers that can: before they have started,
        or while a lost group waits to be started again, nothing is there to be saved."""
        self._stop = True
        return self._has_started

    def request_resize(self) -> None:
        """Ask the workers to save at their next checkpoint and wait to be restarted."""
        self._resize = True

    def clear_group(self) -> None:
        """No workers are there: a new group is about to start."""
        self._resize = self._has_started = False
        self._waiting.clear()
        with self._lock:
            self._watch.clear()

    def requests(self) -> tuple[bool, bool]:
        """Whether to stop, whether to resize."""
        return self._stop, self._resize

    def wait_for_shutdown(self, rank: int) -> None:
        """A worker has saved and waits."""
        self._waiting.add(rank)
        self.forget(rank)

    def trains(self) -> bool:
        """Whether there are workers, and none of them waits to be started again."""
        return self._has_started and not self._waiting

    def all_waiting(self) -> bool:
        return bool(self._waiting) and len(self._waiting) >= self._workers

    def heard(self, pulse: Pulse) -> None:
        """A rank lives. One of a group that is being ended is no longer waited for."""
        with self._lock:
            if self._has_started:
                self._watch.heard(pulse)

    def forget(self, rank: int) -> None:
        """A rank may end from now on."""
        with self._lock:
            self._watch.forget(rank)

    def _look(self) -> None:
        with self._lock:
            hang = self._watch.look()
            if hang:
                self._watch.clear()  # Ray Train ends the group, and a new one starts
        if hang:
            self._end(hang)

    def _end(self, hang: Hang) -> None:
        """Say who hangs, keep it beside the run's logs, and kill it: Ray asks a process to end itself, which
        one that is stopped does not."""
        from plinth.observe.failures import record_lost  # here: most runs never need it

        for pulse in hang.pulses:
            said = f"rank {pulse.rank} on {pulse.host} {hang.why[pulse.rank]}"
            log.warning("%s%s", said, f"\n{pulse.stack}" if pulse.stack else "")
        try:
            record_lost(self._storage, hang.why)
        except (PlinthError, OSError) as error:  # the record explains; the rank must end anyway
            log.warning("which ranks hang cannot be kept: %s", error)
        for pulse in hang.pulses:
            end_process(pulse)


def end_process(pulse: Pulse) -> None:
    """SIGKILL the process of a pulse, on whatever node it is."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if pulse.node == ray.get_runtime_context().get_node_id():
        kill(pulse.pid, pulse.born)
        return
    there = NodeAffinitySchedulingStrategy(pulse.node, soft=False)
    ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(kill).remote(pulse.pid, pulse.born)


def kill(pid: int, born: int) -> bool:
    """SIGKILL a process of this machine, if it is still the one that started at `born`."""
    if born_at(pid) != born:
        return False
    os.kill(pid, signal.SIGKILL)
    return True
