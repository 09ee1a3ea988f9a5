"""A sweep from its first trial to its last, on Ray Tune.

Each trial reserves its driver and its workers in one placement group, all or nothing, so trials never hold
what others wait for; Tune starts a trial when its group is there, which follows the cluster as it grows and
shrinks, and gives the group back when the trial ends.
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
from types import FrameType
from typing import Any

import ray
from ray import tune
from ray.tune.execution.placement_groups import PlacementGroupFactory

from plinth.errors import ConfigError, PlinthError
from plinth.observe.ledger import summarise
from plinth.storage import Storage
from plinth.storage.arrow import arrow_filesystem
from plinth.sweep import schedulers
from plinth.sweep.config import SchedulerKind, SweepConfig
from plinth.sweep.records import (
    FINISHED,
    INTERRUPTED,
    TRIALS,
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
from plinth.units import SECONDS_PER_HOUR

REPLAY_CPUS = 0.001
"""Of a trial that only says again what it has said."""
BUDGET_CHECK_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepDriver:
    """What it takes to run a sweep.

    `resources` are those of one worker; `admit` refuses values that no job can run with.
    """

    config: SweepConfig
    storage: Storage
    task: TrialTask
    record: SweepRecord
    resources: Mapping[str, float]
    admit: Callable[[Values], None]
    show: Callable[[], None]
    start_timeout_s: float
    stop: threading.Event = field(default_factory=threading.Event)
    """When it is set, every trial saves and the sweep ends."""

    def run(self) -> SweepRecord:
        """Run or resume the sweep on the Ray that is there; returns its record as it ended.

        Raises:
            ConfigError: the cluster has no room for one trial.
            PlinthError: no trial ended with a value of the metric.
        """
        self._check_room()
        known = read_trials(self.storage)
        over = {trial.record.index for trial in known if trial.record.status.is_over}
        recorder = _TrialRecorder(self, {trial.record.index: trial.record for trial in known})
        budget = _Budget(self)
        filesystem, path = arrow_filesystem(self.storage.child("tune"))
        searcher, space = self._searcher(known)
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(TrialTrainable, task=self.task), partial(_reserve, self._bundles(), over)
            ),
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
        with _sigterm_as_sigint(), _every(self.config.show_every_s, self._keep):
            tuner.fit()
        recorder.pause_the_rest()
        self.record.status = budget.reason or self._outcome()
        self._keep()
        self._check_any_number()
        return self.record

    def _searcher(self, known: Sequence[Trial]) -> tuple[TrialSearcher | None, dict[str, Any]]:
        """Who hands out trials. Population based training takes no searcher: it is given them all."""
        searcher = TrialSearcher(self.config, self.storage, known, self.admit)
        if self.config.scheduler.kind is not SchedulerKind.pbt:
            return searcher, {}
        members = list(iter(partial(searcher.suggest, "a member"), TrialSearcher.FINISHED))
        return None, {TRIAL: tune.grid_search([member[TRIAL] for member in members])}

    def concurrent(self) -> int:
        """How many trials the cluster as it is now has room for."""
        there, needed = ray.cluster_resources(), self._needed()
        fits = min(int(there.get(kind, 0.0) / amount + 1e-9) for kind, amount in needed.items())
        return fits if self.config.max_concurrent is None else min(fits, self.config.max_concurrent)

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

    def _check_room(self) -> None:
        """Reserve a trial's resources for a moment: that is what every trial will ask for, and what an
        autoscaler hears."""
        group = ray.util.placement_group(self._bundles())
        try:
            if group.wait(min(self.start_timeout_s, 5.0) if self.concurrent() else self.start_timeout_s):
                return
        finally:
            ray.util.remove_placement_group(group)
        there = ray.cluster_resources()
        listed = ", ".join(f"{amount:g} {kind}" for kind, amount in self._needed().items())
        has = ", ".join(f"{there.get(kind, 0.0):g} {kind}" for kind in self._needed())
        raise ConfigError(
            f"A trial of {self.config.workers} worker(s) needs {listed}; the cluster has {has}.",
            "Lower sweep.workers, fit.cpus_per_worker or sweep.driver_cpus, or start a larger cluster.",
        )

    def _outcome(self) -> str:
        over = [trial for trial in read_trials(self.storage) if trial.record.status.is_over]
        return FINISHED if len(over) >= planned_trials(self.config) else INTERRUPTED

    def _keep(self) -> None:
        """Write the record and show the sweep, now and then; never the reason why a sweep fails."""
        self.record.beat, self.record.beat_every_s = time.time(), self.config.show_every_s
        try:
            write_sweep(self.storage, self.record)
            self.show()
        except PlinthError as error:
            log.warning("the sweep's record is not written: %s", error)

    def _check_any_number(self) -> None:
        trials = read_trials(self.storage)
        over = [trial for trial in trials if trial.record.status.is_over]
        metric, mode = self.config.metric, self.config.mode.value
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
    """A trial's resources; next to nothing for one that is over and only repeats itself."""
    if config[TRIAL][INDEX] in over:
        return PlacementGroupFactory([{"CPU": REPLAY_CPUS}])
    return PlacementGroupFactory(bundles)


class _Local:
    """Part of this process alone: Tune writes its settings down so that it could restore them, which we
    never ask for."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self


class _TrialRecorder(_Local, tune.Callback):
    """Writes down what becomes of the trials."""

    def __init__(self, driver: SweepDriver, records: dict[int, TrialRecord]) -> None:
        self._driver, self._records = driver, records
        self._fixed = {index for index, record in records.items() if record.status.is_over}
        self._logged_concurrent: int | None = None

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Say how many trials there is room for, whenever that changes."""
        now = self._driver.concurrent()
        if now != self._logged_concurrent:
            self._logged_concurrent = now
            log.info("room for %d trial(s) at a time", now)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._note(trial, Status.running)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        finished = (trial.last_result or {}).get(IS_FINISHED, False)
        self._note(trial, Status.finished if finished else Status.stopped)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        lines = [line for line in str(trial.get_error()).splitlines() if line.strip()]
        self._note(trial, Status.failed, lines[-1] if lines else "")

    def pause_the_rest(self) -> None:
        """Those that the sweep's end cut off go on when it does."""
        for record in self._records.values():
            if not record.status.is_over:
                self._write(record, Status.paused if record.status is Status.running else record.status)

    def _note(self, trial: Any, status: Status, message: str = "") -> None:
        index = trial.config[TRIAL][INDEX]
        if index in self._fixed:
            return  # it only said again what it had said
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


class _Budget(_Local, tune.Stopper):
    """Ends the sweep when it has used up what it may."""

    def __init__(self, driver: SweepDriver) -> None:
        self._driver = driver
        self._since = self._looked = time.monotonic()
        self._before_s = driver.record.spent_s
        self.reason = ""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Whether it has."""
        if self._driver.stop.is_set():
            self.reason = INTERRUPTED
        now = time.monotonic()
        if not self.reason and now - self._looked >= BUDGET_CHECK_S:
            self._looked = now
            self._driver.record.spent_s = self._before_s + now - self._since
            self.reason = self._exceeded()
            if self.reason:
                log.info("%s: every trial saves and waits", self.reason)
        return bool(self.reason)

    def _exceeded(self) -> str:
        budget = self._driver.config.budget
        if budget.hours is not None and self._driver.record.spent_s >= budget.hours * SECONDS_PER_HOUR:
            return f"budget of {budget.hours:g} hours used up"
        if budget.steps is None and budget.cost is None:
            return ""
        trials = read_trials(self._driver.storage)
        if budget.steps is not None and sum(trial.history.steps for trial in trials) >= budget.steps:
            return f"budget of {budget.steps} steps used up"
        if budget.cost is not None and self._cost(trials) >= budget.cost:
            return f"budget of {budget.cost:g} used up"
        return ""

    def _cost(self, trials: Sequence[Trial]) -> float:
        folder = self._driver.storage.child(TRIALS)
        books = [summarise(folder.child(trial.record.name)) for trial in trials]
        return sum(sum(book.cost.values()) for book in books if book.cost)


def _quiet_tune() -> None:
    """No log files beside ours, no warnings about ways that we do not go."""
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


@contextlib.contextmanager
def _every(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Call it in another thread meanwhile."""
    closed = threading.Event()

    def go() -> None:
        while not closed.wait(seconds):
            act()

    thread = threading.Thread(target=go, name="plinth-sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closed.set()
        thread.join()
