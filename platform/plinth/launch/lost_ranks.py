"""Which worker died first: Ray Train's controller sees it before it ends the others."""

from __future__ import annotations

import logging
from typing import Any

import ray.train

from plinth.errors import PlinthError
from plinth.observe import terminal
from plinth.observe.failures import record_lost
from plinth.ray_internals.train_failures import is_lost_worker, memory_kill
from plinth.storage import Storage

LOWER = "lower micro_batch_size, fit.workers or data.max_prefetch_windows, or take machines with more memory"

log = logging.getLogger(__name__)


def _of_memory(said: str) -> str:
    """Why a rank is lost that Ray's memory monitor killed; empty for another, of which nothing is known.

    Args:
        said: of `plinth.ray_internals.train_failures.memory_kill`.
    """
    return f"out of memory: ended by Ray's memory monitor ({said}); {LOWER}" if said else ""


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
        terminal.drop_noise()

    def after_exception(
        self, run_context: ray.train.v2.api.context.TrainRunContext, worker_exceptions: dict[int, Exception]
    ) -> None:
        """Called once for each failed attempt, with the workers that failed by then."""
        self._coordinator.clear_group.remote()  # Ray Train ends the others
        lost = [rank for rank, error in worker_exceptions.items() if is_lost_worker(error)]
        if not lost:
            return
        why = {rank: _of_memory(memory_kill(worker_exceptions[rank])) for rank in lost}
        try:
            record_lost(self._storage, why)
        except (PlinthError, OSError) as error:  # the record explains; training goes on without it
            log.warning("which workers were lost cannot be kept: %s", error)
