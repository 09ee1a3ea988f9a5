"""Ray Tune's schedulers, from the fields of `SchedulerConfig`.

Time is the trained part of a trial's full length, in the scheduler's units, so trials with different batch
sizes are compared after the same number of samples."""

from __future__ import annotations

import math
from typing import Any

from ray import tune
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from plinth.ray_internals.tune import population_training
from plinth.sweep.config import SchedulerKind, SweepConfig
from plinth.sweep.space import Dimension, Space
from plinth.sweep.trial import INDEX, OBJECTIVE, TIME, TRIAL, VALUES

PopulationTraining: Any = population_training()


def units(config: SweepConfig) -> float:
    """Units of time in a trial's full length; one unit is the least time between two decisions."""
    part = config.scheduler.grace
    if config.scheduler.kind is SchedulerKind.pbt:
        part = config.scheduler.exploit_every
    return 1.0 / part


def build(config: SweepConfig) -> TrialScheduler:
    """The scheduler that the job asks for."""
    kind, settings = config.scheduler.kind, config.scheduler
    judged: dict[str, Any] = {"time_attr": TIME, "metric": OBJECTIVE, "mode": config.mode.value}
    if kind is SchedulerKind.none:
        return FIFOScheduler()
    if kind is SchedulerKind.asha:
        return AsyncHyperBandScheduler(
            **judged, max_t=units(config), grace_period=1, reduction_factor=settings.reduction
        )
    if kind is SchedulerKind.hyperband:
        return HyperBandScheduler(**judged, max_t=units(config), reduction_factor=settings.reduction)
    if kind is SchedulerKind.median:
        # No time slice: it would pause trials in favour of others, and every pause is a restart.
        return MedianStoppingRule(**judged, grace_period=1, min_time_slice=math.inf)
    return _Population(
        **judged,
        perturbation_interval=1,
        quantile_fraction=settings.exploit_quantile,
        hyperparam_mutations={TRIAL: {VALUES: {key: _domain(d) for key, d in config.space.items()}}},
        custom_explore_fn=_Clip(config.space),
        log_config=False,
        synch=True,  # else a member that started early is done before it is compared
    )


class _Population(PopulationTraining):
    """A trial that clones another one keeps its own index, which names its folder."""

    def new_config(self, trial: Any, config: dict[str, Any]) -> dict[str, Any]:
        config[TRIAL][INDEX] = trial.config[TRIAL][INDEX]
        return config


class _Clip:
    """Changed values stay within the space."""

    def __init__(self, space: Space) -> None:
        self._space = dict(space)

    def __call__(self, config: dict[str, Any]) -> dict[str, Any]:
        values = config[TRIAL][VALUES]
        config[TRIAL][VALUES] = {key: self._space[key].clip(value) for key, value in values.items()}
        return config


def _domain(dimension: Dimension) -> Any:
    values = dimension.values
    if dimension.is_list:
        return values
    if dimension.kind == "integer":
        return tune.randint(values[0], values[1] + 1)
    return (tune.uniform if dimension.kind == "uniform" else tune.loguniform)(*values)
