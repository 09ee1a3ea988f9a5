"""Which values are tried next: those of the trials that storage knows first, then new ones."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from plinth.errors import ConfigError, PlinthError
from plinth.storage import Storage
from plinth.sweep.config import Mode, SearcherKind, SweepConfig
from plinth.sweep.records import Status, Trial, TrialRecord, Values, write_trial
from plinth.sweep.space import Dimension, draw, grid
from plinth.sweep.trial import INDEX, OBJECTIVE, TRIAL, VALUES

log = logging.getLogger(__name__)


class TrialSearcher(Searcher):
    """Hands trials to Tune, each with its index and values, and writes the record of new ones.

    Args:
        storage: the sweep's folder.
        known: trials of earlier starts; those that are over come first, so that the scheduler knows what
            they said before it judges others.
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
        self._proposer = proposer(config, known)
        self._values: dict[str, Values] = {}

    def suggest(self, trial_id: str) -> Any:
        """The config of the next trial; FINISHED after the last."""
        if self._known:
            trial = self._known.popleft()
            self._values[trial_id] = trial.record.values
            return {TRIAL: {INDEX: trial.record.index, VALUES: trial.said.values}}
        if self._next >= planned_trials(self._config):
            return Searcher.FINISHED
        values = self._proposer.propose(self._next)
        if values is None:
            return Searcher.FINISHED
        record = TrialRecord(self._next, values)
        self._next += 1
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
            self._proposer.learn(self._values[trial_id], value)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records in storage are all that is needed."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as above."""


def planned_trials(config: SweepConfig) -> int:
    """How many trials the sweep has, at most."""
    return len(grid(config.space)) if config.searcher is SearcherKind.grid else config.trials


class Listed:
    """Values that are known from the start."""

    def __init__(self, points: Sequence[Values]) -> None:
        self._points = points

    def propose(self, index: int) -> Values | None:
        """Of trial `index`."""
        return self._points[index] if index < len(self._points) else None

    def learn(self, values: Values, value: float) -> None:
        """Nothing to learn."""


class Optuna:
    """The estimator of the optuna package, told of all trials that storage knows."""

    def __init__(self, config: SweepConfig, known: Sequence[Trial]) -> None:
        optuna = import_optuna()
        optuna.logging.set_verbosity(logging.WARNING)
        self._optuna, self._config = optuna, config
        direction = "minimize" if config.mode is Mode.min else "maximize"
        self._study = optuna.create_study(direction=direction)
        for trial in known:
            value = trial.best(config.metric, config.mode.value)
            if value is not None and trial.record.status.is_over:
                self.learn(trial.record.values, value)

    def propose(self, index: int) -> Values | None:
        """The sampler draws anew for each trial, so that a sweep that was interrupted draws as before."""
        self._study.sampler = self._optuna.samplers.TPESampler(seed=self._config.seed + index)
        asked = self._study.ask()
        values: Values = {}
        for key, dimension in self._config.space.items():
            if dimension.is_active(values):
                values[key] = _suggest(asked, key, dimension)
        self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)  # `learn` adds it with its value
        return values

    def learn(self, values: Values, value: float) -> None:
        """A trial ended with this value of the metric."""
        distributions = {key: self._distribution(self._config.space[key]) for key in values}
        params = {
            key: d.values.index(v) if (d := self._config.space[key]).is_list else v
            for key, v in values.items()
        }
        made = self._optuna.trial.create_trial(params=params, distributions=distributions, value=value)
        self._study.add_trial(made)

    def _distribution(self, dimension: Dimension) -> Any:
        known = self._optuna.distributions
        if dimension.is_list:  # by place in the list: optuna takes no lists or mappings as values
            return known.CategoricalDistribution(range(len(dimension.values)))
        low, high = dimension.values
        if dimension.kind == "integer":
            return known.IntDistribution(low, high)
        return known.FloatDistribution(low, high, log=dimension.kind == "log_uniform")


def proposer(config: SweepConfig, known: Sequence[Trial]) -> Listed | Optuna:
    """What the job's searcher stands for."""
    if config.searcher is SearcherKind.optuna:
        return Optuna(config, known)
    if config.searcher is SearcherKind.grid:
        return Listed(grid(config.space))
    return Listed(draw(config.space, config.trials, config.seed))


def import_optuna() -> Any:
    """The package.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise ConfigError(
            "sweep.searcher optuna needs the optuna package.", "pip install optuna, or use random."
        ) from None
    return optuna


def _suggest(asked: Any, key: str, dimension: Dimension) -> Any:
    if dimension.is_list:
        return dimension.values[asked.suggest_categorical(key, range(len(dimension.values)))]
    low, high = dimension.values
    if dimension.kind == "integer":
        return asked.suggest_int(key, low, high)
    return asked.suggest_float(key, low, high, log=dimension.kind == "log_uniform")
