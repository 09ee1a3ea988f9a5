"""The state of a sweep, read from its folder: trials, varied keys, costs."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import yaml

from plinth.errors import StorageError
from plinth.observe.ledger import SECONDS_PER_HOUR, LedgerSummary, summarise
from plinth.storage import Storage
from plinth.sweep.records import (
    JOB_KEY,
    READERS,
    RUNNING,
    SHARED,
    SWEEP_KEY,
    TRIALS,
    Status,
    SweepRecord,
    Trial,
    Values,
    best_first,
    read_sweep,
    read_trials,
    status_now,
)

RANGES = ("uniform", "log_uniform", "integer")
"""The kinds of `plinth.sweep.space.Dimension` that have two bounds, not a list."""


@dataclass(frozen=True)
class Varied:
    """A key of the job that the sweep varies."""

    key: str
    name: str
    """The shortest unique end of the key."""
    is_log: bool = False
    """Its logarithm is drawn uniformly."""
    is_list: bool = False
    """Its values are a list rather than a range."""


@dataclass(frozen=True)
class Cost:
    """What a trial or a sweep has cost."""

    worker_hours: float = 0.0
    gpu_hours: float = 0.0
    money: float | None = None
    """None without a price."""

    @property
    def unit(self) -> str:
        """GPU-hours where there are any, else worker-hours."""
        return "GPU-hours" if self.gpu_hours else "worker-hours"

    @property
    def hours(self) -> str:
        """The number of hours, as text."""
        return f"{self.gpu_hours or self.worker_hours:.3f}"

    @property
    def price(self) -> str:
        """The money as text; empty without a price."""
        return "" if self.money is None else f"{self.money:.2f}"

    def __str__(self) -> str:
        """Such as "12.300 GPU-hours for 30.75"."""
        return f"{self.hours} {self.unit}" + (f" for {self.price}" if self.price else "")


@dataclass
class SweepState:
    """A sweep at one moment."""

    uri: str
    record: SweepRecord
    trials: list[Trial]
    """By index."""
    costs: dict[str, Cost]
    """Cost of each trial by its name, and of the shared warm-up."""
    varied: list[Varied]
    job: dict[str, Any]
    """sweep.yaml."""

    @property
    def is_over(self) -> bool:
        return self.record.status != RUNNING

    @property
    def cost(self) -> Cost:
        """Cost of all trials and the shared warm-up."""
        prices = [cost.money for cost in self.costs.values() if cost.money is not None]
        return Cost(
            sum(cost.worker_hours for cost in self.costs.values()),
            sum(cost.gpu_hours for cost in self.costs.values()),
            sum(prices) if prices else None,
        )

    @property
    def steps(self) -> int:
        """Optimizer steps that all trials have reported."""
        return sum(trial.history.steps for trial in self.trials)

    @property
    def budget(self) -> dict[str, float]:
        """The limits that are set, of steps, hours and cost."""
        limits = (self.job.get("sweep") or {}).get("budget") or {}
        return {key: limit for key, limit in limits.items() if limit is not None}

    @property
    def ranked(self) -> list[Trial]:
        """The trials with a finite metric, the best first."""
        found = best_first(self.trials, self.record.metric, self.record.mode)
        return [trial for trial in found if math.isfinite(self.best(trial) or 0.0)]

    @property
    def counts(self) -> dict[Status, int]:
        """Status -> number of trials, where there are any."""
        return {s: n for s in Status if (n := sum(t.record.status is s for t in self.trials))}

    def best(self, trial: Trial) -> float | None:
        """The trial's best value of the metric."""
        return trial.best(self.record.metric, self.record.mode)

    def curve(self, trial: Trial) -> tuple[list[float], list[float]]:
        """Samples, and the metric at each report where it is a finite number."""
        values = [
            (float(r.samples), r.metrics.get(self.record.metric, math.nan)) for r in trial.history.reports
        ]
        found = [(samples, value) for samples, value in values if math.isfinite(value)]
        return [samples for samples, _ in found], [value for _, value in found]


@dataclass
class Over:
    """Trials that have ended for good, of a process that reads a sweep again and again: nothing of them
    changes."""

    trials: dict[int, Trial] = field(default_factory=dict)
    """By index."""
    costs: dict[str, Cost] = field(default_factory=dict)
    """By name."""


def read_state(storage: Storage, over: Over | None = None) -> SweepState:
    """Read the folder of a sweep: one list of all of it, then the records of its trials, several at a time.

    Args:
        over: trials that need not be read; those that are over by now join them.

    Raises:
        StorageError: it holds no sweep, or cannot be read.
    """
    over = over or Over()
    record = read_sweep(storage)
    if record is None:
        raise StorageError(
            f"{storage.uri} is not a sweep: it has no {SWEEP_KEY}.",
            "Give the folder of a sweep: output/name of its job.",
        )
    record.status = status_now(record, time.time())
    job = yaml.safe_load(storage.read(JOB_KEY))
    space = (job.get("sweep") or {}).get("space") or {}
    trials = read_trials(storage, over.trials)
    for trial in trials:
        trial.history.values = trial.history.values or _own_values(job, space)
    folders = {
        trial.record.name: f"{TRIALS}/{trial.record.name}"
        for trial in trials
        if trial.record.name not in over.costs
    }
    if record.shares_warmup:
        folders[SHARED] = SHARED
    by_folder = _by_folder(dict(storage.list()), set(folders.values()))

    def cost(folder: str) -> Cost:
        return _cost(summarise(storage.child(folder), sizes=by_folder[folder]))

    with ThreadPoolExecutor(READERS, thread_name_prefix="plinth-costs") as pool:
        read = dict(zip(folders, pool.map(cost, folders.values()), strict=True))
    costs = {name: over.costs.get(name) or read[name] for name in (trial.record.name for trial in trials)}
    ended = [trial for trial in trials if trial.record.status.is_over]
    over.trials |= {trial.record.index: trial for trial in ended}
    over.costs |= {trial.record.name: costs[trial.record.name] for trial in ended}
    return SweepState(
        uri=storage.uri,
        record=record,
        trials=trials,
        costs=costs | ({SHARED: read[SHARED]} if record.shares_warmup else {}),
        varied=_varied(space, trials),
        job=job,
    )


def _by_folder(sizes: Mapping[str, int], folders: Collection[str]) -> dict[str, dict[str, int]]:
    """Folder -> key below it -> bytes."""
    found: dict[str, dict[str, int]] = {folder: {} for folder in folders}
    for key, size in sizes.items():
        parts = key.split("/")
        folder = "/".join(parts[:2]) if parts[0] == TRIALS else parts[0]
        if folder in found:
            found[folder][key.removeprefix(f"{folder}/")] = size
    return found


def short_names(keys: Sequence[str]) -> list[str]:
    """The shortest ends of dotted keys that are unique among them."""
    parts = [key.split(".") for key in keys]
    lengths = [1] * len(keys)
    while True:
        names = [".".join(of_key[-n:]) for of_key, n in zip(parts, lengths, strict=True)]
        counted = Counter(names)
        longer = [
            min(n + (counted[name] > 1), len(of_key))
            for name, n, of_key in zip(names, lengths, parts, strict=True)
        ]
        if longer == lengths:
            return names
        lengths = longer


def value_text(value: Any) -> str:
    """A parameter's value in a few characters."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def metric_text(value: float | None) -> str:
    """A metric's value as runs are shown: 2.3041."""
    if value is None:
        return "-"
    return f"{value:.4f}" if value == 0 or 1e-2 <= abs(value) < 1e5 else f"{value:.4g}"


def _own_values(job: dict[str, Any], space: dict[str, Any]) -> Values:
    """The job's own values of the keys of the space: those of the trial that changes none."""
    found: Values = {}
    for key, dimension in space.items():
        value: Any = job
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        when = (dimension.get("when") or {}).items()
        if value is not None and all(
            found.get(other) in (wanted if isinstance(wanted, list) else [wanted]) for other, wanted in when
        ):
            found[key] = value
    return found


def _varied(space: dict[str, Any], trials: Sequence[Trial]) -> list[Varied]:
    """The keys of the space, or those of the trials where the job has no space."""
    keys = list(space) or list(dict.fromkeys(key for trial in trials for key in trial.history.values))
    found = []
    for key, name in zip(keys, short_names(keys), strict=True):
        given = space.get(key) or {}
        values = [trial.history.values[key] for trial in trials if key in trial.history.values]
        is_range = any(given.get(kind) for kind in RANGES) and all(is_number(value) for value in values)
        found.append(Varied(key, name, is_range and bool(given.get("log_uniform")), not is_range))
    return found


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _cost(book: LedgerSummary) -> Cost:
    return Cost(
        sum(book.worker_seconds.values()) / SECONDS_PER_HOUR,
        sum(book.gpu_hours.values()),
        None if book.cost is None else sum(book.cost.values()),
    )
