"""Resources that are reserved before the training starts, as a trial of a sweep does.

Ray Train reserves a placement group for its workers. In a trial that would be a second reservation beside
the trial's own, and trials that each hold the one and wait for the other never end. So a trial reserves
its driver and its workers at once, and Ray Train uses that (`plinth.ray_internals.train.make_trainer`).
Removing the group frees everything, whatever state the training was in.
"""

from __future__ import annotations

import threading
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup


class TrialPlacement:
    """A placement group of a driver and workers, and the link to the training in it.

    Args:
        group: bundle 0 is the driver's, one more for each worker.
        label: prefix of the workers' messages in the terminal.
        is_alone: `plinth.ray_internals.core.is_alone` of the process that has started Ray.
    """

    def __init__(self, group: PlacementGroup, label: str = "", is_alone: bool = False) -> None:
        self.group, self.label, self.is_alone = group, label, is_alone
        self._coordinator: Any = None
        self._attached = threading.Event()
        self._stop_wanted = False

    def attach(self, coordinator: Any) -> None:
        """The training begins; `coordinator` is its `plinth.launch.coordinator.Coordinator`."""
        self._coordinator = coordinator
        self._attached.set()
        if self._stop_wanted:
            self.request_stop()

    def reports(self) -> list[dict[str, Any]]:
        """The reports of rank 0 since the last call."""
        if not self._attached.is_set():
            return []
        reports: list[dict[str, Any]] = ray.get(self._coordinator.take_reports.remote())
        return reports

    def request_stop(self) -> None:
        """Have the training save and exit, also if it has yet to begin."""
        self._stop_wanted = True
        if self._attached.is_set():
            self._coordinator.request_stop.remote()
