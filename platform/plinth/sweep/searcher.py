"""The trials that Tune runs: first those in storage, then new ones."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from plinth.errors import PlinthError
from plinth.storage import Storage
from plinth.sweep.config import SweepConfig
from plinth.sweep.records import Status, Trial, TrialRecord, Values, write_trial
from plinth.sweep.samplers import FixedSampler, make_sampler, planned_trials
from plinth.sweep.trial import INDEX, OBJECTIVE, TRIAL, VALUES

log = logging.getLogger(__name__)


class TrialSearcher(Searcher):
    """Hands trials to Tune, each with its index and values, and writes the record of new ones.

    Args:
        storage: the sweep's folder.
        known: trials of earlier starts; ended ones come first, so that the scheduler has their reports before
            it judges others.
        admit: raises a PlinthError if a job with these values cannot run.
    """

    def __init__(
        self,
        config: SweepConfig,
        storage: Storage,
        known: Sequence[Trial],
        admit: Callable[[Values], None],
    ) -> None:
        super().__init__(metric=OBJECTIVE, mode=config.mode.value)
        self._config, self._storage, self._admit = config, storage, admit
        self._known = deque(sorted(known, key=lambda t: (not t.record.status.is_over, t.record.index)))
        self._next = len(known)
        self._sampler = make_sampler(config, known)
        self._values: dict[str, Values] = {}

    def suggest(self, trial_id: str) -> Any:
        """The config of the next trial; FINISHED after the last."""
        if self._known:
            trial = self._known.popleft()
            self._values[trial_id] = trial.record.values
            return {TRIAL: {INDEX: trial.record.index, VALUES: trial.history.values}}
        if self._next >= planned_trials(self._config):
            return Searcher.FINISHED
        values = self._sampler.sample(self._next)
        if values is None:
            return Searcher.FINISHED
        record = TrialRecord(self._next, values)
        self._next += 1
        if not isinstance(self._sampler, FixedSampler):  # a list was checked before the sweep began
            try:
                self._admit(values)
            except PlinthError as error:
                record.status, record.message = Status.failed, str(error)
        write_trial(self._storage, record)
        if record.status is Status.failed:
            log.warning("trial %s cannot run: %s", record.name, record.message)
            return self.suggest(trial_id)
        self._values[trial_id] = values
        return {TRIAL: {INDEX: record.index, VALUES: values}}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn from it."""
        value = (result or {}).get(OBJECTIVE, math.nan)
        if not error and math.isfinite(value):
            self._sampler.learn(self._values[trial_id], value)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records in storage suffice."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""
