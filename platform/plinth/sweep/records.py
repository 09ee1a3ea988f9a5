"""What a sweep keeps in storage: all that is needed to show it, and to resume it after any interruption.

    output/name/
      sweep.yaml           the resolved job
      sweep.json           SweepRecord: what was asked for, and how it ended; by the sweep's driver
      shared/              a run: the warm-up that all trials start from, where they can
      trials/000/          a run like any other, and beside its own files
        trial.json         TrialRecord: values and status; by the sweep's driver
        reports.json       TrialHistory: its reports, and the values they were made with; by the trial

Ray Tune's own state is not kept: `reports.json` is replayed to its scheduler, so the truth is in one place
and a sweep resumes on any machine that reaches the storage.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from plinth.errors import StorageError
from plinth.every import QUIET_HEARTBEATS
from plinth.storage import MissingKeyError, Storage

JOB_KEY, SWEEP_KEY = "sweep.yaml", "sweep.json"
TRIAL_KEY, REPORTS_KEY = "trial.json", "reports.json"
SHARED, TRIALS = "shared", "trials"
READERS = 16
"""Concurrent requests to the storage of a sweep."""
RUNNING, FINISHED, INTERRUPTED = "running", "finished", "interrupted"
"""Values of `SweepRecord.status`."""

Values = dict[str, Any]
"""Dotted key of the job -> value; a key whose condition does not hold is left out."""


class Status(enum.Enum):
    """Where a trial is."""

    waiting = "waiting"
    running = "running"
    finished = "finished"
    """It ran to its full length."""
    stopped = "stopped"
    """Stopped early by the scheduler."""
    failed = "failed"
    paused = "paused"
    """Interrupted, or stopped at the budget: it continues when the sweep does."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended for good."""
        return self in (Status.finished, Status.stopped, Status.failed)


@dataclass(frozen=True)
class StageLength:
    """How long a stage of a trial is, and where it reports."""

    steps: int
    samples: int
    every: int
    """Steps between two reports."""

    def is_due(self, step: int) -> bool:
        """Whether a trial reports after `step` steps. It has other checkpoints too: where it was stopped."""
        return step % self.every == 0 or step == self.steps


@dataclass(frozen=True)
class Report:
    """A trial's numbers at one of its checkpoints."""

    stage: str
    step: int
    """Steps done in the stage."""
    samples: int
    """Samples trained on, over all stages of the trial."""
    seconds: float
    """Training time up to there, over all restarts."""
    metrics: dict[str, float]
    """Training metrics are means over the steps since the report before."""
    intervals: dict[str, list[float]] = field(default_factory=dict)
    """95 % intervals [low, high] of the metrics that were measured with one."""


class Measured(NamedTuple):
    """A metric of a checkpoint with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass
class TrialHistory:
    """A trial's reports, and its present values (population based training changes them)."""

    values: Values
    reports: list[Report] = field(default_factory=list)
    donors: list[str] = field(default_factory=list)
    """Population based training: the trials whose weights it cloned, in order, as "TRIAL at STEP"."""
    lengths: dict[str, StageLength] = field(default_factory=dict)
    """Lengths of its stages, in order."""
    adopted: dict[str, int] = field(default_factory=dict)
    """Stage and step of the checkpoint that it cloned last: the steps before it are not its own."""
    adopting: str = ""
    """The trial whose checkpoints it is cloning now: an interrupted clone is done again."""
    is_finished: bool = False
    """It has reached its full length."""

    @property
    def steps(self) -> int:
        """Optimizer steps over all stages."""
        return sum({report.stage: report.step for report in self.reports}.values())


@dataclass
class TrialRecord:
    """One trial, as the sweep's driver sees it."""

    index: int
    values: Values
    """Its values at the start."""
    status: Status = Status.waiting
    message: str = ""
    """Why it failed."""

    @property
    def name(self) -> str:
        return trial_name(self.index)


@dataclass
class SweepRecord:
    """The sweep as a whole."""

    name: str
    metric: str
    mode: str
    """min or max."""
    scheduler: str
    searcher: str
    seed: int
    trials: int
    identity: dict[str, Any]
    """What decides a trial's result: a sweep can be resumed only with the same."""
    samples: int
    """Full length of a trial."""
    shares_warmup: bool = False
    status: str = RUNNING
    """running, finished, interrupted, or which budget is used up."""
    started: float = 0.0
    """`time.time()` of the first start."""
    spent_s: float = 0.0
    """Wall time over all starts."""
    beat: float = 0.0
    """`time.time()` of the driver's last heartbeat."""
    beat_every_s: float = 0.0
    """Seconds between two heartbeats."""
    starts: int = 0


def status_now(record: SweepRecord, now: float) -> str:
    """Its status; "interrupted" if it is "running" without a recent heartbeat of its driver."""
    quiet_s = now - record.beat
    if record.status == RUNNING and record.beat and quiet_s > QUIET_HEARTBEATS * record.beat_every_s:
        return INTERRUPTED
    return record.status


@dataclass
class Trial:
    """A trial as it is in storage."""

    record: TrialRecord
    history: TrialHistory

    def best(self, metric: str, mode: str) -> float | None:
        """The best value of the metric that it has reported; None without any."""
        return (min if mode == "min" else max)(self._values(metric), default=None)

    def last(self, metric: str) -> float | None:
        """The last value of the metric; None without any."""
        return next(reversed(self._values(metric)), None)

    def _values(self, metric: str) -> list[float]:
        found = [report.metrics.get(metric) for report in self.history.reports]
        return [value for value in found if value is not None and value == value]  # without NaN


def trial_name(index: int) -> str:
    """Folder of a trial."""
    return f"{index:03d}"


def write_sweep(storage: Storage, record: SweepRecord) -> None:
    """Replace the sweep's record."""
    storage.write(SWEEP_KEY, json.dumps(asdict(record), indent=1).encode())


def read_sweep(storage: Storage) -> SweepRecord | None:
    """The sweep in this folder, None where there is none.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return SweepRecord(**json.loads(storage.read(SWEEP_KEY)))
    except MissingKeyError:
        return None
    except (ValueError, TypeError):
        raise _unreadable(storage, SWEEP_KEY) from None


def write_trial(storage: Storage, record: TrialRecord) -> None:
    """Replace a trial's record. `storage` is the sweep's folder."""
    body = {**asdict(record), "status": record.status.value}
    _folder(storage, record.index).write(TRIAL_KEY, json.dumps(body, indent=1).encode())


def write_history(trial: Storage, history: TrialHistory) -> None:
    """Replace a trial's history. `trial` is its folder."""
    trial.write(REPORTS_KEY, json.dumps(asdict(history), indent=1).encode())


def read_history(trial: Storage) -> TrialHistory | None:
    """A trial's history, None before its first report. `trial` is its folder."""
    try:
        body = json.loads(trial.read(REPORTS_KEY))
        lengths = {stage: StageLength(**length) for stage, length in body["lengths"].items()}
        return TrialHistory(**{**body, "lengths": lengths, "reports": [Report(**r) for r in body["reports"]]})
    except MissingKeyError:
        return None
    except (ValueError, TypeError, KeyError):
        raise _unreadable(trial, REPORTS_KEY) from None


def read_trials(storage: Storage, known: Mapping[int, Trial] | None = None) -> list[Trial]:
    """All trials of a sweep by index, several at a time.

    Args:
        storage: the sweep's folder.
        known: those that need not be read, by index.
    """
    known = known or {}
    found: list[Trial] = []

    def one(index: int) -> Trial | None:
        return known[index] if index in known else read_trial(storage, index)

    with ThreadPoolExecutor(READERS, thread_name_prefix="plinth-trials") as pool:
        while True:
            some = pool.map(one, range(len(found), len(found) + READERS))
            there = [trial for trial in some if trial is not None]
            found += there
            if len(there) < READERS:  # they are numbered without gaps
                return found


def read_trial(storage: Storage, index: int) -> Trial | None:
    """One trial, None if there is none. `storage` is the sweep's folder."""
    folder = _folder(storage, index)
    try:
        body = json.loads(folder.read(TRIAL_KEY))
        record = TrialRecord(**{**body, "status": Status(body["status"])})
    except MissingKeyError:
        return None
    except (ValueError, TypeError, KeyError):
        raise _unreadable(folder, TRIAL_KEY) from None
    return Trial(record, read_history(folder) or TrialHistory(record.values))


def intervals(measured: Mapping[str, Measured]) -> dict[str, list[float]]:
    """Those that are finite, as a report keeps them."""
    return {
        name: [found.low, found.high]
        for name, found in measured.items()
        if math.isfinite(found.low) and math.isfinite(found.high)
    }


def best_first(trials: Sequence[Trial], metric: str, mode: str) -> list[Trial]:
    """Trials that reported the metric, the best value first; ties by index."""
    sign = 1 if mode == "min" else -1
    rated = [(sign * value, t.record.index, t) for t in trials if (value := t.best(metric, mode)) is not None]
    return [trial for _, _, trial in sorted(rated, key=lambda entry: entry[:2])]


def _folder(storage: Storage, index: int) -> Storage:
    return storage.child(TRIALS).child(trial_name(index))


def _unreadable(storage: Storage, key: str) -> StorageError:
    return StorageError(
        f"{storage.uri}/{key} cannot be read.",
        "Restore it; if another version of this program wrote it, use that one.",
    )
