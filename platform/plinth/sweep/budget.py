"""When a sweep has used up its budget."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from ray import tune

from plinth.observe.ledger import summarise
from plinth.storage import Storage
from plinth.sweep.config import BudgetConfig
from plinth.sweep.records import INTERRUPTED, TRIALS, SweepRecord, Trial, read_trials
from plinth.units import SECONDS_PER_HOUR

CHECK_EVERY_S = 5.0

log = logging.getLogger(__name__)


class LocalPart:
    """A part of this process that Tune does not save: it writes down its settings to restore them later,
    which we never ask for."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


class Budget(LocalPart, tune.Stopper):
    """Ends the sweep when its budget is used up, or when `stop` is set.

    Args:
        storage: the sweep's folder.
        record: gets the wall time that the sweep has spent.
    """

    def __init__(
        self, config: BudgetConfig, storage: Storage, record: SweepRecord, stop: threading.Event
    ) -> None:
        self._config, self._storage, self._record, self._stop = config, storage, record, stop
        self._began = self._checked = time.monotonic()
        self._spent_before_s = record.spent_s
        self.reason = ""
        """Why the sweep ends; empty while it continues."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Whether the sweep ends now. Storage is read every `CHECK_EVERY_S`."""
        if self._stop.is_set():
            self.reason = INTERRUPTED
        now = time.monotonic()
        if not self.reason and now - self._checked >= CHECK_EVERY_S:
            self._checked = now
            self._record.spent_s = self._spent_before_s + now - self._began
            self.reason = self.exceeded()
            if self.reason:
                log.info("%s: every trial saves and waits", self.reason)
        return bool(self.reason)

    def exceeded(self) -> str:
        """Which limit is reached, in a few words; empty if none."""
        limits = self._config
        if limits.hours is not None and self._record.spent_s >= limits.hours * SECONDS_PER_HOUR:
            return f"budget of {limits.hours:g} hours used up"
        if limits.steps is None and limits.cost is None:
            return ""
        trials = read_trials(self._storage)
        if limits.steps is not None and sum(trial.history.steps for trial in trials) >= limits.steps:
            return f"budget of {limits.steps} steps used up"
        if limits.cost is not None and self._cost(trials) >= limits.cost:
            return f"budget of {limits.cost:g} used up"
        return ""

    def _cost(self, trials: Sequence[Trial]) -> float:
        folder = self._storage.child(TRIALS)
        ledgers = [summarise(folder.child(trial.record.name)) for trial in trials]
        return sum(sum(ledger.cost.values()) for ledger in ledgers if ledger.cost)
