"""One trial, as Ray Tune's actor: a training run that reports at its checkpoints.

The run is a run like any other, in its own folder, and resumes from its own checkpoints. So this actor may
be ended at any moment: the one that comes after it first says again what the trial has said before, which
brings Tune's scheduler up to date, and then goes on.
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

from plinth.room import Room
from plinth.storage import Storage
from plinth.sweep.adopt import adopt
from plinth.sweep.records import TRIALS, Report, TrialReports, Values, read_reports, trial_name, write_reports
from plinth.train import checkpoint
from plinth.train.control import checkpoint_report
from plinth.train.metrics import read_lines

TRIAL, INDEX, VALUES = "trial", "index", "values"
"""Keys of Tune's config of a trial: {TRIAL: {INDEX: 3, VALUES: {...}}}."""
OBJECTIVE, TIME, IS_FINISHED = "objective", "time", "is_finished"
"""Keys of what a trial reports to Tune."""
POINTER = "pointer.json"
POLL_S = 0.2
STOP_LIMIT_S = 120.0
"""How long a trial that is given up may take to save and end."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialTask:
    """What all trials of a sweep share; picklable."""

    storage: Storage
    """The sweep's folder."""
    train: Callable[[str, Values, Room, bool], None]
    """Trains the run of that name with those values in that room to its end, resuming it. The last
    argument: go on although the values are others than those of its last checkpoint."""
    lengths: Callable[[Values], dict[str, int]]
    """Samples of each stage of a trial, in order."""
    time_units: float
    """How many units of Tune's time a trial's full length has."""
    metric: str
    mode: str
    measure: Callable[[Storage, str, int], dict[str, float]] | None
    """Metrics of a checkpoint, given the run's folder, stage and step; None if training's suffice."""


class Trial(tune.Trainable):
    """Tune's view of a trial: each `step` is one of its reports."""

    def setup(self, config: dict[str, Any], task: TrialTask) -> None:
        """Read what the trial has said before."""
        logging.getLogger("ray.tune").setLevel(logging.WARNING)  # else it says how long this takes
        self._task = task
        self._name = trial_name(config[TRIAL][INDEX])
        self._folder = task.storage.child(TRIALS).child(self._name)
        values = dict(config[TRIAL][VALUES])
        self._said = read_reports(self._folder) or TrialReports(values)
        self._has_changed = self._said.values != values or bool(self._said.donors)
        self._said.values = values
        if self._has_changed or not self._said.lengths:  # it takes the job's models and data to know them
            self._said.lengths = task.lengths(values)
        self._lengths = self._said.lengths
        self._before = deque(self._said.reports)
        if self._said.adopting:
            self._adopt()
        self._pending: deque[dict[str, Any]] = deque()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def step(self) -> dict[str, Any]:
        """The next report, of before or of now. Raises what the training has raised."""
        if self._before:
            report = self._before.popleft()
            return self._result(report, done=self._said.is_finished and not self._before)
        training = self._thread or self._start()
        while not self._pending and training.is_alive():
            self._pending.extend(self._room.reports())
            time.sleep(POLL_S)
        self._pending.extend(self._room.reports())
        if self._pending:
            report = self._take(self._pending.popleft())
            is_last = report.samples >= sum(self._lengths.values())
        else:
            is_last = True  # the training has ended by itself
        if is_last:
            self._finish(training)
        return self._result(self._said.reports[-1], done=is_last)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """A pointer: the weights are in the run's folder."""
        body = {TRIAL: self._name, "said": len(self._said.reports) - len(self._before)}
        (Path(checkpoint_dir) / POINTER).write_text(json.dumps(body))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on where this trial was, or where another one is, whose values (changed) Tune gave this one."""
        pointer = json.loads((Path(checkpoint_dir) / POINTER).read_text())
        if pointer[TRIAL] == self._name:
            self._before = deque(self._said.reports[pointer["said"] :])
            return
        self._said.adopting, self._said.is_finished = pointer[TRIAL], False
        self._has_changed = True
        self._before.clear()
        write_reports(self._folder, self._said)
        self._adopt()

    def _adopt(self) -> None:
        donor = self._said.adopting
        step = adopt(self._task.storage.child(TRIALS).child(donor), self._folder, list(self._lengths))
        self._said.donors.append(f"{donor} at {step}")
        self._said.adopting = ""
        write_reports(self._folder, self._said)

    def cleanup(self) -> None:
        """Have the training save and end; Tune removes the trial's resources next."""
        if self._thread is not None and self._thread.is_alive():
            self._room.request_stop()
            self._thread.join(STOP_LIMIT_S)

    def _start(self) -> threading.Thread:
        group = ray.util.get_current_placement_group()
        assert group is not None, "Tune starts every trial in a placement group"
        self._room = Room(group, label=f"trial {self._name}")
        self._since = time.monotonic()
        if (missed := self._missed()) is not None:
            self._pending.append(missed)

        def train() -> None:
            try:
                self._task.train(self._name, self._said.values, self._room, self._has_changed)
            except BaseException as error:  # told to Tune by `step`, in Tune's thread
                self._error = error

        self._thread = threading.Thread(target=train, name="plinth-trial", daemon=True)
        self._thread.start()
        return self._thread

    def _finish(self, training: threading.Thread) -> None:
        training.join()
        if self._error is not None:
            raise self._error
        if not self._said.reports:
            raise RuntimeError(f"{self._folder.uri} has ended without a checkpoint.")
        self._said.is_finished = True
        write_reports(self._folder, self._said)

    def _take(self, summary: dict[str, Any]) -> Report:
        """Make a report of it, measured if the sweep asks for that, and keep it."""
        stage, step = summary.pop("stage"), int(summary.pop("step"))
        samples = self._samples_before(stage) + int(summary.pop("samples"))
        metrics = {name: float(value) for name, value in summary.items()}
        if self._task.measure is not None:
            self._wait_for_commit(stage, step)
            metrics |= self._task.measure(self._folder, stage, step)
        now = time.monotonic()
        so_far = self._said.reports[-1].seconds if self._said.reports else 0.0
        report = Report(stage, step, samples, so_far + now - self._since, metrics)
        self._since = now
        self._said.reports.append(report)
        write_reports(self._folder, self._said)
        return report

    def _result(self, report: Report, done: bool) -> dict[str, Any]:
        value = report.metrics.get(self._task.metric, math.nan)
        worst = math.inf if self._task.mode == "min" else -math.inf  # which no scheduler keeps
        return {
            OBJECTIVE: value if math.isfinite(value) else worst,
            TIME: report.samples / sum(self._lengths.values()) * self._task.time_units,
            IS_FINISHED: done,
            "done": done,
        }

    def _samples_before(self, stage: str) -> int:
        names = list(self._lengths)
        return sum(self._lengths[name] for name in names[: names.index(stage)])

    def _wait_for_commit(self, stage: str, step: int) -> None:
        """Checkpoints are uploaded while training goes on; the thread's end is the limit."""
        stored = self._folder.child(stage).child("checkpoints")
        while (checkpoint.latest(stored) or 0) < step:
            if self._thread is None or not self._thread.is_alive():
                return
            time.sleep(POLL_S)

    def _missed(self) -> dict[str, Any] | None:
        """A checkpoint that counts and was not reported, because this trial was killed in between."""
        last = self._said.reports[-1] if self._said.reports else None
        for stage in reversed(self._lengths):
            storage = self._folder.child(stage)
            step = checkpoint.latest(storage.child("checkpoints"))
            if step is None:
                continue
            known = last.step if last is not None and last.stage == stage else 0
            lines = [line for line in read_lines(storage) if known <= line["step"] < step]
            if not lines or step <= known:
                return None
            kept = ("step", "loss", "lr", "grad_norm")
            steps = [{key: line[key] for key in kept} | line["terms"] for line in lines]
            return checkpoint_report(stage, steps, lines[-1]["samples"])
        return None
