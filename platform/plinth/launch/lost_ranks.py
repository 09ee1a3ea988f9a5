"""Which worker died first: Ray Train's controller sees it before it ends the others."""

from __future__ import annotations

import logging
from typing import Any

import ray.train

from plinth import ray_internals
from plinth.errors import PlinthError
from plinth.observe import noise
from plinth.observe.failures import record_lost
from plinth.storage import Storage

log = logging.getLogger(__name__)


class LostRanks(ray.train.UserCallback):
    """Keeps the ranks whose processes died, beside the records that ranks write themselves, and tells the
    coordinator that nobody is there to save.

    Args:
        storage: the run's folder.
        coordinator: the actor.
    """

    def __init__(self, storage: Storage, coordinator: Any) -> None:
        self._storage, self._coordinator = storage, coordinator

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickled in the process of Ray's controller, where no other code of ours runs at the start."""
        self.__dict__.update(state)
        noise.drop_known()

    def after_exception(
        self, run_context: ray.train.v2.api.context.TrainRunContext, worker_exceptions: dict[int, Exception]
    ) -> None:
        """Called once for each failed attempt, with the workers that failed by then."""
        self._coordinator.clear_group.remote()  # Ray Train ends the others
        lost = [rank for rank, error in worker_exceptions.items() if ray_internals.is_lost_worker(error)]
        if not lost:
            return
        try:
            record_lost(self._storage, dict.fromkeys(lost, ""))
        except (PlinthError, OSError) as error:  # the record explains; training goes on without it
            log.warning("which workers were lost cannot be kept: %s", error)
