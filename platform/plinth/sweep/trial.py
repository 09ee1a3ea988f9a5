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

from plinth.checkpoint import save_load as checkpoint
from plinth.checkpoint.store import COMMIT_KEY, folder_name
from plinth.errors import PlinthError
from plinth.launch.placement import TrialPlacement
from plinth.observe.metrics import read_lines
from plinth.storage import Storage
from plinth.sweep.clone_run import clone_run
from plinth.sweep.records import (
    TRIALS,
    Report,
    StageLength,
    TrialHistory,
    Values,
    read_history,
    trial_name,
    write_history,
)  # fmt: skip
from plinth.train.control import checkpoint_report

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
    train: Callable[[str, Values, TrialPlacement, bool], None]
    """Trains the run of that name with those values in that placement to its end, resuming it. The last
    argument: go on although the values are others than those of its last checkpoint."""
    lengths: Callable[[Values], dict[str, StageLength]]
    """Of a trial's stages, in order."""
    time_units: float
    """How many units of Tune's time a trial's full length has."""
    metric: str
    mode: str
    measure: Callable[[Storage, str, int], dict[str, float]] | None
    """Metrics of a checkpoint, given the run's folder, stage and step; None if training's suffice."""


class TrialTrainable(tune.Trainable):
    """Tune's view of a trial: each `step` is one of its reports."""

    def setup(self, config: dict[str, Any], task: TrialTask) -> None:
        """Read what the trial has said before."""
        logging.getLogger("ray.tune").setLevel(logging.WARNING)  # else it says how long this takes
        self._task = task
        self._name = trial_name(config[TRIAL][INDEX])
        self._folder = task.storage.child(TRIALS).child(self._name)
        values = dict(config[TRIAL][VALUES])
        self._history = read_history(self._folder) or TrialHistory(values)
        self._has_changed = self._history.values != values or bool(self._history.donors)
        self._history.values = values
        if self._has_changed or not self._history.lengths:  # it takes the job's models and data to know them
            self._history.lengths = task.lengths(values)
        self._lengths = self._history.lengths
        self._before = deque(self._history.reports)
        if self._history.adopting:
            self._clone_donor()
        self._pending: deque[tuple[dict[str, Any], bool]] = deque()
        """Summaries of checkpoints, and whether they lack the steps before the training went on."""
        self._is_cut = False
        """It went on from a checkpoint between two reports, and has not reported since."""
        self._since = time.monotonic()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def step(self) -> dict[str, Any]:
        """The next report, of before or of now. Raises what the training has raised."""
        if self._before:
            again = self._before.popleft()
            return self._result(again, done=self._history.is_finished and not self._before)
        training = self._thread or self._start()
        report = self._next(training)
        is_last = report is None or report.samples >= self._samples
        if is_last:
            self._finish(training)
        return self._result(self._history.reports[-1], done=is_last)

    def _next(self, training: threading.Thread) -> Report | None:
        """The next report; None once the training has ended."""
        while True:
            is_over = not training.is_alive()
            for said in self._placement.reports():
                stage, step = said["stage"], said["step"]
                # Known already: said, and then done again because its checkpoint did not come to count.
                if self._lengths[stage].is_due(step) and step > self._known(stage):
                    self._pending.append((said, self._is_cut))
                    self._is_cut = False
            if self._pending:
                report = self._take(*self._pending.popleft())
                if report is not None:
                    return report
            elif is_over:
                return None
            else:
                time.sleep(POLL_S)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """A pointer: the weights are in the run's folder."""
        body = {TRIAL: self._name, "said": len(self._history.reports) - len(self._before)}
        (Path(checkpoint_dir) / POINTER).write_text(json.dumps(body))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on where this trial was, or where another one is, whose values (changed) Tune gave this one."""
        pointer = json.loads((Path(checkpoint_dir) / POINTER).read_text())
        if pointer[TRIAL] == self._name:
            self._before = deque(self._history.reports[pointer["said"] :])
            return
        self._history.adopting, self._history.is_finished = pointer[TRIAL], False
        self._has_changed = True
        self._before.clear()
        write_history(self._folder, self._history)
        self._clone_donor()

    def _clone_donor(self) -> None:
        donor = self._history.adopting
        stage, step = clone_run(
            self._task.storage.child(TRIALS).child(donor), self._folder, list(self._lengths)
        )
        self._history.donors.append(f"{donor} at {step}")
        self._history.adopted = {stage: step}
        self._history.adopting = ""
        write_history(self._folder, self._history)

    def cleanup(self) -> None:
        """Have the training save and end; Tune removes the trial's resources next."""
        if self._thread is not None and self._thread.is_alive():
            self._placement.request_stop()
            self._thread.join(STOP_LIMIT_S)

    def _start(self) -> threading.Thread:
        group = ray.util.get_current_placement_group()
        assert group is not None, "Tune starts every trial in a placement group"
        self._placement = TrialPlacement(group, label=f"trial {self._name}")
        self._since = time.monotonic()
        self._pending.extend((summary, False) for summary in self._missed())

        def train() -> None:
            try:
                self._task.train(self._name, self._history.values, self._placement, self._has_changed)
            except BaseException as error:  # told to Tune by `step`, in Tune's thread
                self._error = error

        self._thread = threading.Thread(target=train, name="plinth-trial", daemon=True)
        self._thread.start()
        return self._thread

    def _finish(self, training: threading.Thread) -> None:
        training.join()
        if self._error is not None:
            raise self._error
        if not self._history.reports:
            raise RuntimeError(f"{self._folder.uri} has ended without a checkpoint.")
        self._history.is_finished = True
        write_history(self._folder, self._history)

    def _take(self, summary: dict[str, Any], is_cut: bool) -> Report | None:
        """Make a report of it, measured if the sweep asks for that, and keep it. None if it cannot be
        measured any more."""
        stage, step = summary["stage"], int(summary["step"])
        if self._task.measure is not None or is_cut:
            self._wait_for_commit(stage, step)
        if is_cut:
            summary = (self._summaries(stage, self._known(stage), step) or [summary])[-1]
        samples = self._samples_before(stage) + int(summary["samples"])
        metrics = {name: float(v) for name, v in summary.items() if name not in ("stage", "step", "samples")}
        if self._task.measure is not None:
            try:
                metrics |= self._task.measure(self._folder, stage, step)
            except PlinthError:
                if self._folder.child(stage).exists(f"checkpoints/{folder_name(step)}/{COMMIT_KEY}"):
                    raise
                log.warning(
                    "trial %s: the checkpoint of %s step %d was removed before it could be measured; "
                    "raise checkpoint.every_steps or keep_last", self._name, stage, step,
                )  # fmt: skip
                return None
        now = time.monotonic()
        so_far = self._history.reports[-1].seconds if self._history.reports else 0.0
        report = Report(stage, step, samples, so_far + now - self._since, metrics)
        self._since = now
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
        """Of its full length."""
        return sum(length.samples for length in self._lengths.values())

    def _known(self, stage: str) -> int:
        """Up to which step of the stage it has reported, or has not trained itself."""
        last = self._history.reports[-1] if self._history.reports else None
        said = last.step if last is not None and last.stage == stage else 0
        return max(said, self._history.adopted.get(stage, 0))

    def _wait_for_commit(self, stage: str, step: int) -> None:
        """Checkpoints are uploaded while training goes on; the thread's end is the limit."""
        stored = self._folder.child(stage).child("checkpoints")
        while (checkpoint.latest(stored) or 0) < step:
            if self._thread is None or not self._thread.is_alive():
                return
            time.sleep(POLL_S)

    def _missed(self) -> list[dict[str, Any]]:
        """Summaries of checkpoints that count and were not reported, because this trial was ended in
        between."""
        for stage in reversed(self._lengths):
            step = checkpoint.latest(self._folder.child(stage).child("checkpoints"))
            if step is not None:
                self._is_cut = not self._lengths[stage].is_due(step)
                return self._summaries(stage, self._known(stage), step)
        return []

    def _summaries(self, stage: str, after: int, until: int) -> list[dict[str, Any]]:
        """Of all reports that are due from there to there, by what the run has written down."""
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
