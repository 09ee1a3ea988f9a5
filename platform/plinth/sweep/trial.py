"""One trial, as Ray Tune's actor: a training run that reports at its checkpoints.

The run is a run like any other, in its own folder, and resumes from its own checkpoints. So this actor may
be ended at any moment: the next one first replays the trial's reports, which brings Tune's scheduler up to
date, and then continues the training.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from plinth.checkpoint import store
from plinth.checkpoint.store import COMMIT_KEY, folder_name
from plinth.errors import PlinthError
from plinth.launch.placement import TrialPlacement
from plinth.observe.step_lines import read_lines
from plinth.storage import Storage
from plinth.sweep.clone_run import clone_run
from plinth.sweep.records import (
    TRIALS,
    Measured,
    Report,
    StageLength,
    TrialHistory,
    Values,
    intervals,
    read_history,
    trial_name,
    write_history,
)
from plinth.train.control import checkpoint_report

TRIAL, INDEX, VALUES = "trial", "index", "values"
"""Keys of Tune's config of a trial: {TRIAL: {INDEX: 3, VALUES: {...}}}."""
OBJECTIVE, TIME, IS_FINISHED = "objective", "time", "is_finished"
"""Keys of what a trial reports to Tune."""
POINTER = "pointer.json"
POLL_S = 0.2
STOP_LIMIT_S = 120.0
"""How long a trial that the scheduler stops may take to save and exit."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialTask:
    """What all trials of a sweep share; picklable."""

    storage: Storage
    """The sweep's folder."""
    train: Callable[[str, Values, TrialPlacement, bool], None]
    """Trains the run of that name with those values in that placement to its end, resuming it. The last
    argument: resume although the values differ from those of its last checkpoint."""
    lengths: Callable[[Values], dict[str, StageLength]]
    """The lengths of a trial's stages, in order."""
    time_units: float
    """Units of Tune's time in a trial's full length."""
    metric: str
    mode: str
    measure: Callable[[Storage, str, int], dict[str, Measured]] | None
    """Metrics of a checkpoint, given the run's folder, stage and step; None if training's suffice."""


class Training:
    """A trial's training in a thread, on the workers of `placement`."""

    def __init__(self, train: Callable[[TrialPlacement], None], placement: TrialPlacement) -> None:
        self._train, self._placement = train, placement
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="plinth-trial", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def reports(self) -> list[dict[str, Any]]:
        """Summaries of checkpoints since the last call (`plinth.train.control.checkpoint_report`)."""
        return self._placement.reports()

    def wait(self) -> None:
        """Until its end. Raises what the training has raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def stop(self, limit_s: float) -> None:
        """Have it save and exit."""
        self._placement.request_stop()
        self._thread.join(limit_s)

    def _run(self) -> None:
        try:
            self._train(self._placement)
        except BaseException as error:  # raised by `wait`, in Tune's thread
            self._error = error


class TrialRun:
    """The reports of a trial: first those that it has made before, then those of its training.

    Args:
        index: the trial's number.
        start: starts the training, given the trial's name, values, and whether these have changed.
    """

    def __init__(
        self, task: TrialTask, index: int, values: Values, start: Callable[[str, Values, bool], Training]
    ) -> None:
        self._task, self._start = task, start
        self._name = trial_name(index)
        self._folder = task.storage.child(TRIALS).child(self._name)
        self._history = read_history(self._folder) or TrialHistory(values)
        self._has_changed = self._history.values != values or bool(self._history.donors)
        self._history.values = values
        if self._has_changed or not self._history.lengths:  # to know them takes the job's models and data
            self._history.lengths = task.lengths(values)
        self._lengths = self._history.lengths
        self._replay = deque(self._history.reports)
        if self._history.adopting:
            self._clone_donor()
        self._pending: deque[tuple[dict[str, Any], bool]] = deque()
        """Summaries of checkpoints, and whether they lack the steps before the training was resumed."""
        self._is_cut = False
        """It was resumed from a checkpoint between two reports, and has not reported since."""
        self._reported_at = time.monotonic()
        self._training: Training | None = None

    def next_result(self) -> dict[str, Any]:
        """The next report, replayed or new. Raises what the training has raised."""
        if self._replay:
            report = self._replay.popleft()
            return self._result(report, done=self._history.is_finished and not self._replay)
        if self._training is None:
            self._reported_at = time.monotonic()
            self._pending.extend((summary, False) for summary in self._missed())
            self._training = self._start(self._name, self._history.values, self._has_changed)
        new = self._next(self._training)
        is_last = new is None or new.samples >= self._samples
        if is_last:
            self._finish(self._training)
        return self._result(self._history.reports[-1], done=is_last)

    def position(self) -> dict[str, Any]:
        """Where it is, for `move_to`. The weights are in the run's folder."""
        return {TRIAL: self._name, "reports": len(self._history.reports) - len(self._replay)}

    def move_to(self, position: dict[str, Any]) -> None:
        """Continue from a position of this trial, or clone the trial whose position it is: Tune has given
        this one that trial's values, changed."""
        if position[TRIAL] == self._name:
            self._replay = deque(self._history.reports[position["reports"] :])
            return
        self._history.adopting, self._history.is_finished = position[TRIAL], False
        self._has_changed = True
        self._replay.clear()
        write_history(self._folder, self._history)
        self._clone_donor()

    def stop(self) -> None:
        """Have the training save and exit; Tune frees the trial's resources next."""
        if self._training is not None and self._training.is_running:
            self._training.stop(STOP_LIMIT_S)

    def _clone_donor(self) -> None:
        donor = self._history.adopting
        trials = self._task.storage.child(TRIALS)
        stage, step = clone_run(trials.child(donor), self._folder, list(self._lengths))
        self._history.donors.append(f"{donor} at {step}")
        self._history.adopted = {stage: step}
        self._history.adopting = ""
        write_history(self._folder, self._history)

    def _next(self, training: Training) -> Report | None:
        """The next report; None once the training has ended."""
        while True:
            is_over = not training.is_running
            for summary in training.reports():
                stage, step = summary["stage"], summary["step"]
                # A step is reported once: it is trained again if its checkpoint was never committed.
                if self._lengths[stage].is_due(step) and step > self._reported_step(stage):
                    self._pending.append((summary, self._is_cut))
                    self._is_cut = False
            if self._pending:
                report = self._take(*self._pending.popleft())
                if report is not None:
                    return report
            elif is_over:
                return None
            else:
                time.sleep(POLL_S)

    def _finish(self, training: Training) -> None:
        training.wait()
        if not self._history.reports:
            raise RuntimeError(f"{self._folder.uri} has ended without a checkpoint.")
        self._history.is_finished = True
        write_history(self._folder, self._history)

    def _take(self, summary: dict[str, Any], is_cut: bool) -> Report | None:
        """Make a report of it, measured if the sweep asks for that, and keep it. None if its checkpoint is
        gone, so that it cannot be measured."""
        stage, step = summary["stage"], int(summary["step"])
        if self._task.measure is not None or is_cut:
            self._wait_for_commit(stage, step)
        if is_cut:
            summary = (self._summaries(stage, self._reported_step(stage), step) or [summary])[-1]
        samples = self._samples_before(stage) + int(summary["samples"])
        metrics = {name: float(v) for name, v in summary.items() if name not in ("stage", "step", "samples")}
        measured: dict[str, Measured] = {}
        if self._task.measure is not None:
            try:
                measured = self._task.measure(self._folder, stage, step)
            except PlinthError:
                if self._folder.child(stage).exists(f"checkpoints/{folder_name(step)}/{COMMIT_KEY}"):
                    raise
                log.warning(
                    "trial %s: the checkpoint of %s step %d was removed before it could be measured; "
                    "raise checkpoint.every_steps or keep_last",
                    *(self._name, stage, step),
                )
                return None
        now = time.monotonic()
        so_far = self._history.reports[-1].seconds if self._history.reports else 0.0
        metrics |= {name: found.value for name, found in measured.items()}
        report = Report(stage, step, samples, so_far + now - self._reported_at, metrics, intervals(measured))
        self._reported_at = now
        self._history.reports.append(report)
        write_history(self._folder, self._history)
        return report

    def _result(self, report: Report, done: bool) -> dict[str, Any]:
        value = report.metrics.get(self._task.metric, math.nan)
        worst = math.inf if self._task.mode == "min" else -math.inf  # which no scheduler keeps
        return {
            OBJECTIVE: value if math.isfinite(value) else worst,
            TIME: report.samples / self._samples * self._task.time_units,
            IS_FINISHED: done,
            "done": done,
        }

    def _samples_before(self, stage: str) -> int:
        names = list(self._lengths)
        return sum(self._lengths[name].samples for name in names[: names.index(stage)])

    @property
    def _samples(self) -> int:
        """The trial's full length."""
        return sum(length.samples for length in self._lengths.values())

    def _reported_step(self, stage: str) -> int:
        """The step of the stage up to which it has reported, or that it has cloned."""
        last = self._history.reports[-1] if self._history.reports else None
        reported = last.step if last is not None and last.stage == stage else 0
        return max(reported, self._history.adopted.get(stage, 0))

    def _wait_for_commit(self, stage: str, step: int) -> None:
        """Checkpoints are uploaded while training continues; the training's end is the limit."""
        stored = self._folder.child(stage).child("checkpoints")
        while (store.latest(stored) or 0) < step:
            if self._training is None or not self._training.is_running:
                return
            time.sleep(POLL_S)

    def _missed(self) -> list[dict[str, Any]]:
        """Summaries of committed checkpoints that were not reported, because this trial was ended in
        between."""
        for stage in reversed(self._lengths):
            step = store.latest(self._folder.child(stage).child("checkpoints"))
            if step is not None:
                self._is_cut = not self._lengths[stage].is_due(step)
                return self._summaries(stage, self._reported_step(stage), step)
        return []

    def _summaries(self, stage: str, after: int, until: int) -> list[dict[str, Any]]:
        """The summaries that are due after step `after` up to `until`, from the run's metrics."""
        due = [step for step in range(after + 1, until + 1) if self._lengths[stage].is_due(step)]
        lines = read_lines(self._folder.child(stage)) if due else []
        found = []
        for step in due:
            steps = [
                {key: line[key] for key in ("step", "loss", "lr", "grad_norm")} | line["terms"]
                for line in lines
                if after <= line["step"] < step
            ]
            if steps:
                found.append(checkpoint_report(stage, steps, lines[-1]["samples"]))
            after = step
        return found


class TrialTrainable(tune.Trainable):
    """Tune's view of a trial: each `step` is one of its reports."""

    def setup(self, config: dict[str, Any], task: TrialTask, is_alone: bool) -> None:
        """Called by Tune with a trial's config and what `tune.with_parameters` was given.

        Args:
            is_alone: of the trial's placement.
        """
        logging.getLogger("ray.tune").setLevel(logging.WARNING)  # else it logs how long this takes
        index, values = config[TRIAL][INDEX], dict(config[TRIAL][VALUES])

        def start(name: str, values: Values, has_changed: bool) -> Training:
            group = ray.util.get_current_placement_group()
            assert group is not None, "Tune starts every trial in a placement group"
            placement = TrialPlacement(group, f"trial {name}", is_alone)
            return Training(lambda placed: task.train(name, values, placed, has_changed), placement)

        self._trial_run = TrialRun(task, index, values, start)

    def step(self) -> dict[str, Any]:
        return self._trial_run.next_result()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / POINTER).write_text(json.dumps(self._trial_run.position()))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self._trial_run.move_to(json.loads((Path(checkpoint_dir) / POINTER).read_text()))

    def cleanup(self) -> None:
        self._trial_run.stop()
