"""The actor through which the driver and the workers of a run talk.

In a module of its own, because the actor's process imports it: without Ray Train and torch it starts seconds
earlier and needs less memory.
"""

from __future__ import annotations

from typing import Any

from plinth.errors import PlinthError


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

    def requests(self) -> tuple[bool, bool]:
        """Whether to stop, whether to resize."""
        return self._stop, self._resize

    def wait_for_shutdown(self, rank: int) -> None:
        """A worker has saved and waits."""
        self._waiting.add(rank)

    def all_waiting(self) -> bool:
        return bool(self._waiting) and len(self._waiting) >= self._workers
