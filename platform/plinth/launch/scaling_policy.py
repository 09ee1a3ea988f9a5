"""Which numbers of workers a run may have, and when Ray Train changes it.

Ray's elastic policy starts what fits and restarts at another size whenever the cluster has changed. Ours
keeps two promises on top: a size that does not divide the lanes and the batch is never chosen, and a
healthy run is restarted only when its workers have said that everything is saved, so growing loses nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import ray
from ray._private.state import state
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
)

from plinth.engine.process import log_to_terminal
from plinth.launch.placement import TrialPlacement, run_controller

ANSWER_TIMEOUT_S = 5.0

log = logging.getLogger(__name__)


class LadderPolicy(ElasticScalingPolicy):
    """Ray's elastic policy on a ladder of sizes.

    Args:
        sizes: possible numbers of workers, ascending.
        coordinator: the `plinth.launch.ray_train.Coordinator` that asks the workers to save and wait.
    """

    def __init__(self, scaling_config: Any, sizes: Sequence[int], coordinator: Any) -> None:
        super().__init__(scaling_config)
        self._sizes = list(sizes)
        self._coordinator = coordinator
        self._asked = False

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Start at the largest size that fits."""
        log_to_terminal()  # of the process of Ray's controller
        self._asked = False
        ray.get(self._coordinator.cancel_resize.remote(), timeout=ANSWER_TIMEOUT_S)
        decision: ScalingDecision = super().make_decision_for_non_running_worker_group()
        return decision

    def make_decision_for_running_worker_group(self, **state: Any) -> ScalingDecision:
        """Ask the workers to save and wait; restart them once they do."""
        if self._asked:
            if ray.get(self._coordinator.all_waiting.remote(), timeout=ANSWER_TIMEOUT_S):
                self._asked = False
                return self.make_decision_for_non_running_worker_group()
            return NoopDecision()
        decision = super().make_decision_for_running_worker_group(**state)
        if isinstance(decision, ResizeDecision):
            log.info("room for %d workers: resizing at the next checkpoint", decision.num_workers)
            ray.get(self._coordinator.request_resize.remote(), timeout=ANSWER_TIMEOUT_S)
            self._asked = True
        return NoopDecision()

    def _count_possible_workers(self, reserved_resources: Any) -> int:
        """The largest size of the ladder for which there is room on nodes that stay: Ray's books may
        still list one that is gone or about to go, and waiting for it would take the start time-out."""
        staying = {node["NodeID"] for node in ray.nodes() if node["Alive"]} - set(draining_nodes())
        there = {node: r for node, r in reserved_resources.items() if node in staying}
        room = super()._count_possible_workers(there)
        return max((size for size in self._sizes if size <= room), default=0)


def draining_nodes() -> dict[str, int]:
    """Nodes that will be taken away, with when (ms since 1970; 0 if nobody said)."""
    found: dict[str, int] = state.get_draining_nodes() or {}
    return found


class ElasticTrainer(TorchTrainer):
    """Ray's trainer with our policy in place of its own, in a room of its own if there is one."""

    def __init__(
        self,
        *arguments: Any,
        sizes: Sequence[int],
        coordinator: Any,
        placement: TrialPlacement | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(*arguments, **settings)
        self._sizes, self._coordinator, self._placement = sizes, coordinator, placement

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        if self.scaling_config.elasticity_enabled:
            settings["scaling_policy"] = LadderPolicy(self.scaling_config, self._sizes, self._coordinator)
        if self._placement is not None:
            return run_controller(self._placement.group, settings)
        return super()._initialize_and_run_controller(**settings)

    def _register_sigint_handler(self, controller: Any) -> None:
        """Ray's would throw away what is not saved yet: see `plinth.train.control.on_stop_signals`."""
