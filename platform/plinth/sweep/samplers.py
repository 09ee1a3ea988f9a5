"""Where the values of new trials come from: a fixed list, or an estimator that learns."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from plinth.errors import ConfigError
from plinth.sweep.config import Mode, SearcherKind, SweepConfig
from plinth.sweep.records import Trial, Values
from plinth.sweep.space import Dimension, draw, grid


class FixedSampler:
    """Points that are known from the start: a grid, or random draws."""

    def __init__(self, points: Sequence[Values]) -> None:
        self._points = points

    def sample(self, index: int) -> Values | None:
        """The values of trial `index`; None after the last."""
        return self._points[index] if index < len(self._points) else None

    def learn(self, values: Values, value: float) -> None:
        """A fixed list learns nothing."""


class OptunaSampler:
    """The TPE sampler of the optuna package, given all trials in storage."""

    def __init__(self, config: SweepConfig, known: Sequence[Trial]) -> None:
        optuna = import_optuna()
        self._optuna, self._config = optuna, config
        direction = "minimize" if config.mode is Mode.min else "maximize"
        self._study = optuna.create_study(direction=direction)
        for trial in known:
            value = trial.best(config.metric, config.mode.value)
            if value is not None and trial.record.status.is_over:
                self.learn(trial.record.values, value)

    def sample(self, index: int) -> Values | None:
        """Seeded for each trial, so that a resumed sweep draws what an uninterrupted one does."""
        if index == 0 and self._config.has_default_trial:
            return {}
        self._study.sampler = self._optuna.samplers.TPESampler(seed=self._config.seed + index)
        asked = self._study.ask()
        values: Values = {}
        for key, dimension in self._config.space.items():
            if dimension.is_active(values):
                values[key] = _suggest(asked, key, dimension)
        self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)  # `learn` adds it with its value
        return values

    def learn(self, values: Values, value: float) -> None:
        """Add a trial that ended with this value of the metric."""
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


def make_sampler(config: SweepConfig, known: Sequence[Trial]) -> FixedSampler | OptunaSampler:
    """The sampler that the job's searcher names."""
    first: list[Values] = [{}] if config.has_default_trial else []
    if config.searcher is SearcherKind.optuna:
        return OptunaSampler(config, known)
    if config.searcher is SearcherKind.grid:
        return FixedSampler(first + grid(config.space))
    return FixedSampler(first + draw(config.space, config.trials - len(first), config.seed))


def planned_trials(config: SweepConfig) -> int:
    """How many trials the sweep has, at most."""
    if config.searcher is SearcherKind.grid:
        return len(grid(config.space)) + config.has_default_trial
    return config.trials


def import_optuna() -> Any:
    """The optuna package.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise ConfigError(
            "sweep.searcher optuna needs the optuna package.", "pip install optuna, or use random."
        ) from None
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna


def _suggest(asked: Any, key: str, dimension: Dimension) -> Any:
    if dimension.is_list:
        return dimension.values[asked.suggest_categorical(key, range(len(dimension.values)))]
    low, high = dimension.values
    if dimension.kind == "integer":
        return asked.suggest_int(key, low, high)
    return asked.suggest_float(key, low, high, log=dimension.kind == "log_uniform")
