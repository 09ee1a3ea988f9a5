"""A sweep from its first trial to its last, on Ray Tune.

Each trial reserves its driver and its workers in one placement group, all or nothing, so trials never hold
what others wait for. Tune starts a trial when its group is ready, which follows the cluster as it grows and
shrinks, and frees the group when the trial ends.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import tune
from ray.tune.execution.placement_groups import PlacementGroupFactory

from plinth.errors import ConfigError, PlinthError
from plinth.every import Every
from plinth.ray_internals.core import is_alone
from plinth.ray_internals.tune import hand_no_keys_to_trials
from plinth.storage import Storage
from plinth.storage.arrow import arrow_filesystem
from plinth.sweep import schedulers
from plinth.sweep.budget import Budget, LocalPart
from plinth.sweep.config import SchedulerKind, SearcherKind, SweepConfig
from plinth.sweep.records import (
    FINISHED,
    INTERRUPTED,
    Status,
    SweepRecord,
    Trial,
    TrialRecord,
    Values,
    read_trial,
    read_trials,
    write_sweep,
    write_trial,
)
from plinth.sweep.samplers import planned_trials
from plinth.sweep.searcher import TrialSearcher
from plinth.sweep.trial import INDEX, IS_FINISHED, TRIAL, TrialTask, TrialTrainable
from plinth.units import counted

PENDING_ENV = "TUNE_MAX_PENDING_TRIALS_PG"
"""Ray Tune's own switch: with a searcher it lets one trial at a time wait for room, unless this says more."""
MOST_PENDING = 16
"""Trials that may wait for room, which a cluster that grows hears of at once."""
REPLAY_CPUS = 0.001
"""CPUs of a trial that only replays its reports."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepDriver:
    """What it takes to run a sweep."""

    config: SweepConfig
    storage: Storage
    task: TrialTask
    record: SweepRecord
    resources: Mapping[str, float]
    """Resources of one worker."""
    admit: Callable[[Values], None]
    """Raises a PlinthError for values that no job can run with."""
    show: Callable[[], None]
    start_timeout_s: float
    stop: threading.Event = field(default_factory=threading.Event)
    """When it is set, every trial saves and the sweep ends."""

    def run(self) -> SweepRecord:
        """Run or resume the sweep on the Ray that this process is part of; returns its record at the end.

        Raises:
            ConfigError: the cluster has too few resources for one trial.
            PlinthError: no trial ended with a finite value of the metric.
        """
        self._check_resources()
        known = read_trials(self.storage)
        over = {trial.record.index for trial in known if trial.record.status.is_over}
        recorder = _TrialRecorder(self, {trial.record.index: trial.record for trial in known})
        budget = Budget(self.config.budget, self.storage, self.record, self.stop)
        filesystem, path = arrow_filesystem(self.storage.child("tune"))
        searcher, space = self._searcher(known)
        os.environ.setdefault(PENDING_ENV, str(pending_trials(self.config, self.concurrent())))
        hand_no_keys_to_trials()
        trainable = tune.with_parameters(TrialTrainable, task=self.task, is_alone=is_alone())
        tuner = tune.Tuner(
            tune.with_resources(trainable, partial(_reserve, self._bundles(), over)),
            param_space=space,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=schedulers.build(self.config),
                num_samples=1 if searcher is None else max(planned_trials(self.config), len(known)),
                max_concurrent_trials=self.config.max_concurrent,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name=f"start-{self.record.starts}",
                storage_path=path,
                storage_filesystem=filesystem,
                failure_config=tune.FailureConfig(max_failures=self.config.max_failures),
                callbacks=[recorder],
                stop=budget,
                verbose=0,
            ),
        )
        _quiet_tune()
        writing = Every(
            self.config.show_every_s, self._write_record, "the sweep's record cannot be written", at_end=True
        )
        with writing, _sigterm_as_sigint():
            tuner.fit()
            recorder.pause_unfinished()
            trials = read_trials(self.storage)
            ended = sum(trial.record.status.is_over for trial in trials)
            outcome = FINISHED if ended >= planned_trials(self.config) else INTERRUPTED
            self.record.status = budget.reason or outcome
        check_values(trials, self.config.metric, self.config.mode.value)
        return self.record

    def concurrent(self) -> int:
        """How many trials fit the cluster as it is now."""
        total, needed = ray.cluster_resources(), self._needed()
        fits = min(int(total.get(kind, 0.0) / amount + 1e-9) for kind, amount in needed.items())
        return fits if self.config.max_concurrent is None else min(fits, self.config.max_concurrent)

    def _searcher(self, known: Sequence[Trial]) -> tuple[TrialSearcher | None, dict[str, Any]]:
        """The searcher that hands out trials, and Tune's parameter space. Population based training takes
        no searcher: all trials are in its space."""
        searcher = TrialSearcher(self.config, self.storage, known, self.admit)
        if self.config.scheduler.kind is not SchedulerKind.pbt:
            return searcher, {}
        members = list(iter(partial(searcher.suggest, "a member"), TrialSearcher.FINISHED))
        return None, {TRIAL: tune.grid_search([member[TRIAL] for member in members])}

    def _bundles(self) -> list[dict[str, float]]:
        own = {"CPU": self.config.driver_cpus, "GPU": self.config.driver_gpus}
        driver = {kind: amount for kind, amount in own.items() if amount}
        return [driver, *[dict(self.resources)] * self.config.workers]

    def _needed(self) -> dict[str, float]:
        needed: dict[str, float] = {}
        for bundle in self._bundles():
            for kind, amount in bundle.items():
                needed[kind] = needed.get(kind, 0.0) + amount
        return needed

    def _check_resources(self) -> None:
        """Reserve a trial's resources for a moment: every trial will ask for them, and an autoscaler hears
        of it."""
        group = ray.util.placement_group(self._bundles())
        try:
            if group.wait(min(self.start_timeout_s, 5.0) if self.concurrent() else self.start_timeout_s):
                return
        finally:
            ray.util.remove_placement_group(group)
        total, needed = ray.cluster_resources(), self._needed()
        listed = ", ".join(f"{amount:g} {kind}" for kind, amount in needed.items())
        has = ", ".join(f"{total.get(kind, 0.0):g} {kind}" for kind in needed)
        raise ConfigError(
            f"A trial of {counted(self.config.workers, 'worker')} needs {listed}; the cluster has {has}.",
            "Lower sweep.workers, fit.cpus_per_worker or sweep.driver_cpus, or start a larger cluster.",
        )

    def _write_record(self) -> None:
        self.record.beat, self.record.beat_every_s = time.time(), self.config.show_every_s
        write_sweep(self.storage, self.record)
        self.show()


def pending_trials(config: SweepConfig, fit: int) -> int:
    """How many trials may wait for room, so that a cluster that starts at nothing boots machines for all of
    them at once rather than one by one.

    Args:
        fit: trials that have room now. Where some have and the sampler learns from those that have ended, one
            waits: what is drawn later is drawn better.
    """
    learns = config.searcher is SearcherKind.optuna
    return 1 if learns and fit else min(MOST_PENDING, config.max_concurrent or planned_trials(config))


def check_values(trials: Sequence[Trial], metric: str, mode: str) -> None:
    """Refuse a sweep of which trials have ended, but none with a finite value of the metric.

    Raises:
        PlinthError: with the first failure.
    """
    over = [trial for trial in trials if trial.record.status.is_over]
    values = [trial.best(metric, mode) for trial in over]
    if over and not any(value is not None and math.isfinite(value) for value in values):
        failed = [trial.record.message for trial in over if trial.record.message]
        raise PlinthError(
            f"None of {len(over)} trials gave a value of {metric} that is a number.",
            f"First failure: {failed[0]}" if failed else "Narrow sweep.space: every point diverges.",
        )


def _reserve(
    bundles: list[dict[str, float]], over: set[int], config: dict[str, Any]
) -> PlacementGroupFactory:
    """A trial's resources; next to nothing for one that is over and only replays its reports."""
    replays = config[TRIAL][INDEX] in over
    return PlacementGroupFactory([{"CPU": REPLAY_CPUS}] if replays else bundles)


class _TrialRecorder(LocalPart, tune.Callback):
    """Writes the status of each trial to its record.

    Args:
        records: those of the trials that storage holds already, by index.
    """

    def __init__(self, driver: SweepDriver, records: dict[int, TrialRecord]) -> None:
        self._driver, self._records = driver, records
        self._replayed = {index for index, record in records.items() if record.status.is_over}
        self._logged_concurrent: int | None = None

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Log how many trials fit the cluster, whenever that changes."""
        now = self._driver.concurrent()
        if now != self._logged_concurrent:
            self._logged_concurrent = now
            log.info("room for %s at a time", counted(now, "trial"))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._note(trial, Status.running)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        finished = (trial.last_result or {}).get(IS_FINISHED, False)
        self._note(trial, Status.finished if finished else Status.stopped)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # Tune writes the error to this machine first; `trial.get_error` looks in storage, too early.
        error = Path(trial.error_file or "")
        text = error.read_text() if error.is_file() else ""
        lines = [line for line in text.splitlines() if line.strip()]
        self._note(trial, Status.failed, lines[-1] if lines else "")

    def pause_unfinished(self) -> None:
        """Trials that were running when the sweep ended continue when it does."""
        for record in self._records.values():
            if record.status is Status.running:
                self._write(record, Status.paused)

    def _note(self, trial: Any, status: Status, message: str = "") -> None:
        index = trial.config[TRIAL][INDEX]
        if index in self._replayed:
            return
        if index not in self._records:
            known = read_trial(self._driver.storage, index)
            assert known is not None, "the searcher writes the record before Tune hears of the trial"
            self._records[index] = known.record
        self._write(self._records[index], status, message)

    def _write(self, record: TrialRecord, status: Status, message: str = "") -> None:
        record.status, record.message = status, message
        try:
            write_trial(self._driver.storage, record)
        except PlinthError as error:
            log.warning("trial %s: its record is not written: %s", record.name, error)


def _quiet_tune() -> None:
    """No log files beside ours, no warnings about code paths we do not use."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    logging.getLogger("ray.tune").setLevel(logging.ERROR)


@contextlib.contextmanager
def _sigterm_as_sigint() -> Iterator[None]:
    """Tune ends in order on SIGINT: every trial saves."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
