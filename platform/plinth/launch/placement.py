"""Training inside resources that are reserved already, as a trial of a sweep does.

Ray Train reserves a placement group for its workers. In a trial that would be a second reservation beside
the trial's own, and trials that each hold the one and wait for the other never end. So a trial reserves
everything at once, its driver and its workers, and Ray Train is told to use that. Whoever removes the
group gets everything back, whatever state the training was in.
"""

from __future__ import annotations

import threading
from typing import Any

import ray
from ray._common.constants import RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR as WARN_BLOCKING_GET
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group import DefaultPlacementGroupHandle, WorkerGroup
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

DRIVER_BUNDLE = 0
"""Of the group: the trial itself; the bundles after it are the workers'."""


class TrialPlacement:
    """A placement group of a driver and workers, and what the training in it says.

    Args:
        group: bundle 0 is the driver's, one more for each worker.
        label: what the workers' messages on the terminal begin with.
    """

    def __init__(self, group: PlacementGroup, label: str = "") -> None:
        self.group, self.label = group, label
        self.coordinator: Any = None
        """`plinth.launch.ray_train.Coordinator` of the training that goes on here."""
        self._opened = threading.Event()
        self._shall_stop = False

    def open(self, coordinator: Any) -> None:
        """The training begins."""
        self.coordinator = coordinator
        self._opened.set()
        if self._shall_stop:
            self.request_stop()

    def reports(self) -> list[dict[str, Any]]:
        """What rank 0 has reported since the last call."""
        if not self._opened.is_set():
            return []
        said: list[dict[str, Any]] = ray.get(self.coordinator.take_reports.remote())
        return said

    def request_stop(self) -> None:
        """Have the training save and end, also if it has yet to begin."""
        self._shall_stop = True
        if self._opened.is_set():
            self.coordinator.request_stop.remote()


class _Borrowed(DefaultPlacementGroupHandle):
    """The trial's group: Ray Train may use it, not remove it."""

    def shutdown(self) -> None:
        """It belongs to somebody else."""


def run_controller(group: PlacementGroup, settings: dict[str, Any]) -> Any:
    """What Ray Train's trainer does with its controller, with controller and workers inside `group`.

    Args:
        settings: what the trainer makes its controller with.
    """

    class Workers(WorkerGroup):
        def _create_placement_group(self, *_: Any, **__: Any) -> DefaultPlacementGroupHandle:
            return _Borrowed(group)

        def _create_workers(self, num_workers: int, *arguments: Any, **named: Any) -> Any:
            named.setdefault("placement_group_bundle_indices", _worker_bundles(num_workers))
            return super()._create_workers(num_workers, *arguments, **named)

    class Controller(TrainController):
        worker_group_cls = Workers

    here = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=DRIVER_BUNDLE)
    variables = {WARN_BLOCKING_GET: "0"} | get_env_vars_to_propagate()
    environment = {"env_vars": variables}
    remote = ray.remote(num_cpus=0, scheduling_strategy=here, runtime_env=environment)(Controller)
    controller = remote.remote(**settings)
    ray.get(controller.run.remote())
    return ray.get(controller.get_result.remote())


def _worker_bundles(workers: int) -> list[int]:
    return list(range(DRIVER_BUNDLE + 1, DRIVER_BUNDLE + 1 + workers))
