"""Which numbers of workers a run may have, and when Ray Train changes it.

Ray's elastic policy starts what fits and restarts at another size whenever the cluster has changed. Ours
keeps two promises on top: a size that does not divide the lanes and the batch is never chosen, and a
healthy run is restarted only when its workers have reported that everything is saved, so growing loses
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import ray

from plinth.observe.terminal import log_to_terminal
from plinth.ray_internals.core import draining_nodes
from plinth.ray_internals.train import elastic_policy, scaling_decisions
from plinth.ray_labels import nodes_with

ANSWER_TIMEOUT_S = 5.0
ROUNDING = 1e-6
ElasticPolicy: Any = elastic_policy()
NoopDecision, ResizeDecision = scaling_decisions()

log = logging.getLogger(__name__)


class LadderPolicy(ElasticPolicy):
    """Ray's elastic policy on a ladder of sizes.

    Args:
        sizes: possible numbers of workers, ascending.
        coordinator: the `plinth.launch.coordinator.Coordinator` that asks the workers to save and wait.
        label: of the nodes that may train.
    """

    def __init__(
        self, scaling_config: Any, sizes: Sequence[int], coordinator: Any, label: str | None = None
    ) -> None:
        super().__init__(scaling_config)
        self._sizes = list(sizes)
        self._coordinator = coordinator
        self._label = label
        self._asked = False

    def make_decision_for_non_running_worker_group(self) -> Any:
        """Start at the largest size that fits."""
        log_to_terminal()  # this runs in the process of Ray's controller
        self._asked = False
        ray.get(self._coordinator.clear_group.remote(), timeout=ANSWER_TIMEOUT_S)
        return super().make_decision_for_non_running_worker_group()

    def make_decision_for_running_worker_group(self, **state: Any) -> Any:
        """Ask the workers to save and wait; restart them once they do."""
        if self._asked:
            if ray.get(self._coordinator.all_waiting.remote(), timeout=ANSWER_TIMEOUT_S):
                return self.make_decision_for_non_running_worker_group()
            return NoopDecision()
        decision = super().make_decision_for_running_worker_group(**state)
        if isinstance(decision, ResizeDecision):
            log.info("room for %d workers: resizing at the next checkpoint", decision.num_workers)
            ray.get(self._coordinator.request_resize.remote(), timeout=ANSWER_TIMEOUT_S)
            self._asked = True
        return NoopDecision()

    def count_workers(self, reserved_resources: Any) -> int:
        """The largest size of the ladder that fits on nodes that may train and stay: Ray's books may still
        list a node that is gone or draining, and waiting for it would take the whole start timeout."""
        nodes = {node["NodeID"]: node for node in nodes_with(self._label, ray.nodes())}
        staying = nodes.keys() - set(draining_nodes())
        if self._label is not None:  # Ray reserves room on any node: what these have is taken to be ours
            reserved_resources = {node: nodes[node]["Resources"] for node in staying}
        # Ray divides without rounding: of 1.0 CPU it takes four workers of 0.2.
        rounded_up = {
            node: {kind: amount + ROUNDING for kind, amount in resources.items()}
            for node, resources in reserved_resources.items()
            if node in staying
        }
        fits = super().count_workers(rounded_up)
        return max((size for size in self._sizes if size <= fits), default=0)
