"""The sweep section of a job file."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Collection
from dataclasses import dataclass, field

from plinth.counts import Count
from plinth.errors import ConfigError
from plinth.sweep.space import Dimension, validate


class Mode(enum.Enum):
    """Which end of the metric is the good one."""

    min = "min"
    max = "max"


class SchedulerKind(enum.Enum):
    """Which trials continue."""

    none = "none"
    """All run to their full length."""
    asha = "asha"
    """Asynchronous successive halving: at each rung the worse ones stop."""
    hyperband = "hyperband"
    """Successive halving in brackets of different patience; trials wait for each other at the rungs."""
    median = "median"
    """A trial stops when its best is worse than the median of the others until then."""
    pbt = "pbt"
    """Population based training: bad trials clone the weights of good ones, with slightly changed values."""


class SearcherKind(enum.Enum):
    """Which values are tried."""

    random = "random"
    grid = "grid"
    optuna = "optuna"
    """Tree-structured Parzen estimator of the optuna package: later trials learn from earlier ones."""


@dataclass
class SchedulerConfig:
    """When a trial is stopped early."""

    kind: SchedulerKind = SchedulerKind.asha
    """Which scheduler of Ray Tune."""
    grace: float = 0.125
    """No trial stops before this part of its full length (asha, hyperband, median)."""
    reduction: float = 2.0
    """One in this many trials continues at each rung (asha, hyperband)."""
    exploit_every: float = 0.125
    """A member of the population is compared with the others after this part of its length (pbt)."""
    exploit_quantile: float = 0.25
    """The worst members, this part of the population, clone the best ones (pbt)."""

    def validate(self) -> None:
        """Refuse values out of range.

        Raises:
            ConfigError: naming the key.
        """
        ranges = {
            "grace": (0 < self.grace < 1, "in (0, 1)"),
            "reduction": (self.reduction > 1, "above 1"),
            "exploit_every": (0 < self.exploit_every < 1, "in (0, 1)"),
            "exploit_quantile": (0 < self.exploit_quantile <= 0.5, "in (0, 0.5]"),
        }
        for key, (holds, allowed) in ranges.items():
            if not holds:
                raise ConfigError(
                    f"sweep.scheduler.{key} is {getattr(self, key)}, expected a number {allowed}."
                )


@dataclass
class BudgetConfig:
    """Limits over all starts of the sweep; null for none. At a limit every trial saves and pauses: raise it
    and give the same command to continue."""

    steps: int | None = None
    """Optimizer steps of all trials together."""
    hours: float | None = None
    """Wall time."""
    cost: float | None = None
    """Money, by the price in ledger.price_per_gpu_hour."""

    def validate(self) -> None:
        """Refuse values out of range.

        Raises:
            ConfigError: naming the key.
        """
        for key in ("steps", "hours", "cost"):
            value = getattr(self, key)
            if value is not None and not value > 0:
                raise ConfigError(f"sweep.budget.{key} is {value}, expected more than 0, or null.")


@dataclass
class SweepConfig:
    """What is varied, how trials are judged, and how many there are."""

    space: dict[str, Dimension] = field(default_factory=dict)
    """Dotted key of the job -> its values."""
    metric: str = "loss"
    """What trials are judged by: a training metric of the last stage, or one of the evaluation."""
    mode: Mode = Mode.min
    """Which end of the metric is the good one."""
    trials: Count = 16
    """Number of trials; a grid has one for each of its points."""
    searcher: SearcherKind = SearcherKind.random
    """Which values are tried."""
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    """When a trial is stopped early."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    """Limits of the sweep."""
    seed: int = 0
    """Seed of the drawn values. All trials train with the job's seed: the same data in the same order."""
    include_default: bool = True
    """Trial 000 has the job's own values: what the others must beat. Not with pbt."""
    length: float = 1.0
    """Length of a trial as a part of the job's."""
    share_warmup: bool = True
    """Where only keys of the main stage vary, train the warm-up once and start all trials from it."""
    workers: int = 1
    """Training processes per trial."""
    driver_cpus: float = 0.1
    """CPUs that Ray reserves for the driver of a trial, beside its workers."""
    driver_gpus: float = 0.0
    """GPUs (or a part of one) for the driver of a trial, to evaluate checkpoints on; on CPUs when 0."""
    max_concurrent: Count | None = None
    """Most trials at a time; as many as fit the cluster when null."""
    max_failures: int = 2
    """How often a trial that died is restarted, from its last checkpoint."""
    show_every_s: float = 30.0
    """Seconds between two tables in the terminal, and two writes of the page."""

    @property
    def has_default_trial(self) -> bool:
        """Whether trial 000 has the job's own values."""
        return self.include_default and self.scheduler.kind is not SchedulerKind.pbt

    def validate(self, metrics: Collection[str]) -> None:
        """Refuse what cannot be searched, judged or run.

        Args:
            metrics: those that a trial of this job reports.

        Raises:
            ConfigError: naming the key.
        """
        validate(self.space)
        self.scheduler.validate()
        self.budget.validate()
        if self.metric not in metrics:
            close = difflib.get_close_matches(self.metric, metrics, n=1)
            raise ConfigError(
                f"sweep.metric {self.metric}: no trial of this job reports it.",
                f"Did you mean {close[0]}?" if close else f"Possible are {', '.join(sorted(metrics))}.",
            )
        for key, least in (("trials", 1), ("workers", 1), ("max_failures", 0)):
            if getattr(self, key) < least:
                raise ConfigError(f"sweep.{key} is {getattr(self, key)}, expected {least} or more.")
        if self.driver_gpus < 0:
            raise ConfigError(f"sweep.driver_gpus is {self.driver_gpus}, expected 0 or more.")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise ConfigError(f"sweep.max_concurrent is {self.max_concurrent}, expected 1 or more, or null.")
        if not 0 < self.length <= 1:
            raise ConfigError(f"sweep.length is {self.length}, expected more than 0 and at most 1.")
        for key in ("driver_cpus", "show_every_s"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"sweep.{key} is {getattr(self, key)}, expected more than 0.")
        if self.scheduler.kind is SchedulerKind.pbt:
            self._validate_pbt()

    def _validate_pbt(self) -> None:
        conditional = [key for key, dimension in self.space.items() if dimension.when]
        if conditional:
            raise ConfigError(
                f"sweep.space.{conditional[0]} has a condition, which population based training cannot keep "
                "when it changes values.",
                "Leave `when` out, or use another scheduler.",
            )
        if self.searcher is SearcherKind.optuna:
            raise ConfigError(
                "sweep.searcher optuna and sweep.scheduler.kind pbt both choose values.", "Use random."
            )
        if self.trials < 2:
            raise ConfigError("sweep.trials is 1: a population needs 2 or more.")
