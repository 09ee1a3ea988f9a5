"""The goodput ledger of a run: how its time was spent, over all attempts.

An attempt is one start of a worker group, by the user or by Ray after a failure. Rank 0 keeps a record of
each stage of an attempt and writes it every few seconds, so that a killed attempt leaves its last one:

    <run>/ledger/<attempt>-<stage>.json

`summarise` adds them up. Every second from the first start to the last heartbeat is in one category, but for
the time in which there was no driver: a run that was stopped and is resumed a day later was off, not idle.

    productive         in optimizer steps that count
    data_stall         such a step waiting for its batch
    checkpoint_stall   training waiting for a checkpoint
    start_up           from the start of an attempt to its first step
    lost               steps, with their stalls, that a later attempt or a rollback repeated
    idle               between attempts of a driver, and the rest inside them
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from plinth.every import Every
from plinth.observe.failures import Failure, by_attempt, read_failures
from plinth.observe.once import Once, in_folder
from plinth.storage import Storage
from plinth.storage.json_objects import filled
from plinth.units import SECONDS_PER_HOUR

FOLDER = "ledger"
PRODUCTIVE, DATA_STALL, CHECKPOINT_STALL = "productive", "data_stall", "checkpoint_stall"
START_UP, LOST, IDLE = "start_up", "lost", "idle"
CATEGORIES = (PRODUCTIVE, DATA_STALL, CHECKPOINT_STALL, START_UP, LOST, IDLE)
RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
MARKS_KEPT = 64  # per record: a run resumes from one of the last checkpoints
RECENT_KEPT = 4096  # steps kept one by one since the last durable checkpoint
CLOSE_TIMEOUT_S = 10.0

log = logging.getLogger(__name__)


class Mark(NamedTuple):
    """Seconds that the first `step` steps took, without those that were rolled back."""

    step: int
    productive_s: float = 0.0
    data_stall_s: float = 0.0
    checkpoint_stall_s: float = 0.0

    @property
    def total_s(self) -> float:
        """All three together."""
        return self.productive_s + self.data_stall_s + self.checkpoint_stall_s


@dataclass
class Record:
    """One stage of one attempt, as stored. Times are seconds since 1970."""

    attempt: str
    """Unique to a start of the worker group."""
    stage: str
    world_size: int
    gpus: int
    """Summed over all workers."""
    started: float
    """When the attempt began; for a later stage, when the stage before ended."""
    beat: float
    """Last heartbeat: when this was written, or the attempt closed."""
    beat_every_s: float
    price_per_gpu_hour: float | None = None
    outcome: str = RUNNING
    start_up_s: float | None = None
    """None before the first step."""
    lost_s: float = 0.0
    """Seconds of steps that rollbacks inside the attempt undid."""
    steps_redone: int = 0
    """How many steps those were."""
    is_first: bool = False
    """Whether a driver began with this attempt: before it nothing ran. False in records from before it was
    kept."""
    marks: list[Mark] = field(default_factory=list)
    """At the attempt's first step, its last durable checkpoints and its last step; empty before the first."""


class Ledger:
    """Keeps the record of one stage of one attempt; on rank 0 only.

    A thread writes it, so training never waits for storage.

    Args:
        storage: the run's folder.
        record: a new one.
    """

    def __init__(self, storage: Storage, record: Record) -> None:
        self._storage, self._key = storage, f"{FOLDER}/{record.attempt}-{record.stage}.json"
        self._record = record
        self._recent: list[Mark] = []  # after each step since the last durable checkpoint
        self._closed_at: float | None = None
        self._lock = threading.Lock()
        self._writing = Every(
            record.beat_every_s, self._write, "the ledger cannot be written", at_start=True, at_end=True
        )

    def step(self, step: int, step_s: float, data_wait_s: float, checkpoint_s: float) -> None:
        """Account for an optimizer step. If `step` was done before, training was rolled back.

        Args:
            step: counts from 0.
            step_s: duration of the step with the wait for its batch.
            data_wait_s: the part of it that is the wait.
            checkpoint_s: how long training waited for a checkpoint between the step before and this one.
        """
        with self._lock:
            record = self._record
            if record.start_up_s is None:
                record.start_up_s = max(0.0, time.time() - record.started - step_s - checkpoint_s)
                record.marks = [Mark(step)]
                self._writing.soon()
            self._add_checkpoint_stall(checkpoint_s)
            self._roll_back(step)
            last = self._last()
            self._recent.append(
                Mark(
                    step + 1,
                    last.productive_s + max(0.0, step_s - data_wait_s),
                    last.data_stall_s + data_wait_s,
                    last.checkpoint_stall_s,
                )
            )
            if len(self._recent) > RECENT_KEPT:
                self._recent = [*self._recent[:-1:2], self._recent[-1]]

    def committed(self, step: int) -> None:
        """The checkpoint after `step` steps is durable: a later attempt may resume there."""
        with self._lock:
            marks = self._record.marks
            if marks and marks[-1].step < step <= self._last().step:
                durable = [*marks, _at([*marks, *self._recent], step)]
                self._record.marks = [durable[0], *durable[1:][-MARKS_KEPT:]]
                self._recent = [mark for mark in self._recent if mark.step > step]
                self._writing.soon()

    def record(self) -> Record:
        """The record as of now."""
        with self._lock:
            beat = time.time() if self._closed_at is None else self._closed_at
            return replace(self._record, beat=beat, marks=[*self._record.marks, *self._recent[-1:]])

    def close(self, outcome: str, checkpoint_s: float = 0.0) -> None:
        """End the record; only the first call counts.

        Args:
            outcome: FINISHED, STOPPED or FAILED.
            checkpoint_s: how long training waited for a checkpoint after the last step.
        """
        with self._lock:
            if self._closed_at is not None:
                return
            self._closed_at, self._record.outcome = time.time(), outcome
            if self._record.marks:
                self._add_checkpoint_stall(checkpoint_s)
        self._writing.close(CLOSE_TIMEOUT_S)

    def _last(self) -> Mark:
        return (self._recent or self._record.marks)[-1]

    def _add_checkpoint_stall(self, seconds: float) -> None:
        """To the last mark: an attempt that resumes from that checkpoint does not lose it."""
        marks = self._recent or self._record.marks
        marks[-1] = marks[-1]._replace(checkpoint_stall_s=marks[-1].checkpoint_stall_s + seconds)

    def _roll_back(self, step: int) -> None:
        """Count the steps from `step` on as lost."""
        record, last = self._record, self._last()
        if step >= last.step:
            return
        kept = _at([*record.marks, *self._recent], step)
        record.lost_s += last.total_s - kept.total_s
        record.steps_redone += last.step - max(step, record.marks[0].step)
        record.marks = [*(mark for mark in record.marks if mark.step < step), kept]
        self._recent = []

    def _write(self) -> None:
        self._storage.write(self._key, json.dumps(asdict(self.record())).encode())


@dataclass
class LedgerSummary:
    """The whole run. The dicts have the six categories as keys; `seconds` adds up to `wall_s`."""

    wall_s: float = 0.0
    """From the first start to the last heartbeat, without the time off."""
    off_s: float = 0.0
    """From a driver's last heartbeat to the next one's start: nobody ran it."""
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, 0.0))
    worker_seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, 0.0))
    """Nothing is counted between attempts: how many workers were rented then is not known."""
    gpu_hours: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, 0.0))
    """Counted as `worker_seconds`."""
    cost: dict[str, float] | None = None
    """GPU-hours at their price; None without a price."""
    restarts: int = 0
    steps_redone: int = 0

    def share(self, category: str) -> float:
        """The category's share of the wall time."""
        return self.seconds[category] / self.wall_s if self.wall_s else 0.0


def summarise(
    storage: Storage, now: float | None = None, sizes: Mapping[str, int] | None = None
) -> LedgerSummary:
    """The ledger of the run in `storage`; all zero where it has none.

    Args:
        now: `time.time()`, to count the time since the last heartbeat as idle.
        sizes: of all keys in the run's folder; listed when None.
    """
    return add_up(read_records(storage, sizes=sizes), now)


def read_records(
    storage: Storage,
    found: Sequence[Failure] | None = None,
    once: Once | None = None,
    sizes: Mapping[str, int] | None = None,
) -> list[Record]:
    """The records of a run by their start; one that cannot be read is skipped with a warning. What a killed
    attempt did after its last heartbeat comes from the last batches of its ranks, where these exist.

    Args:
        found: the failures of the run; read when None.
        once: what was read before, of a process that asks again and again.
        sizes: of all keys in the run's folder; listed when None.
    """
    there = in_folder(storage, sizes, FOLDER)
    newest = max((key.rpartition("-")[0] for key in there), default="")
    growing = {key: size for key, size in there.items() if key.rpartition("-")[0] == newest}
    ended = {key: size for key, size in there.items() if key not in growing}
    older = (once or Once()).read("ledger", storage, ended, partial(_record, storage))
    newer = Once().read("ledger", storage, growing, partial(_record, storage))
    records = [
        replace(record, marks=list(record.marks))
        for record in (*older.values(), *newer.values())
        if record is not None
    ]
    records.sort(key=lambda record: (record.started, record.beat))
    failed = by_attempt(read_failures(storage, once, sizes) if found is None else found)
    last_of_attempt = {record.attempt: record for record in records}
    for record in last_of_attempt.values():
        if record.outcome == RUNNING and record.attempt in failed:
            _extend(record, failed[record.attempt])
    return records


def _record(storage: Storage, key: str) -> Record | None:
    try:
        fields = json.loads(storage.read(key))
        marks = [Mark(int(step), *map(float, seconds)) for step, *seconds in fields["marks"]]
        if fields["start_up_s"] is not None and not marks:
            raise ValueError("steps without marks")
        return filled(Record, {**fields, "marks": marks})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        log.warning("%s/%s is skipped, it cannot be read: %s", storage.uri, key, error)
        return None


def _extend(record: Record, failures: Sequence[Failure]) -> None:
    """Move the end of a record to the last sign of life of any rank."""
    last_seen = max(failure.time or 0.0 for failure in failures)
    # A rank was in that step of this stage, so the steps before it were done.
    steps_done = max((f.step or 0 for f in failures if f.stage in ("", record.stage)), default=0)
    if last_seen <= record.beat:
        return
    if record.marks and steps_done > record.marks[-1].step:
        last = record.marks[-1]
        trained_s = last.productive_s + last_seen - record.beat
        record.marks.append(last._replace(step=steps_done, productive_s=trained_s))
    record.beat = last_seen


def add_up(records: Sequence[Record], now: float | None = None) -> LedgerSummary:
    """The sum of `records`, sorted by start. Where two overlap, the time belongs to the later one."""
    if not records:
        return LedgerSummary()
    first, last = records[0].started, max(map(_last_heard, records))
    ended = max(first, last, last if now is None else now)
    off_s = _off_s(records)
    wall_s = max(0.0, ended - first - off_s)
    summary = LedgerSummary(
        wall_s=wall_s, off_s=off_s, restarts=len({record.attempt for record in records}) - 1
    )
    for record, until, resumed in zip(
        records, [*(r.started for r in records[1:]), ended], _resumed_at(records), strict=True
    ):
        inside_s = max(0.0, min(record.beat, until) - record.started)
        spent, redone = _spent(record, resumed, inside_s)
        summary.steps_redone += redone
        for category, seconds in spent.items():
            _count(summary, record, category, seconds)
    others = sum(summary.seconds[category] for category in CATEGORIES if category != IDLE)
    summary.seconds[IDLE] = max(0.0, summary.wall_s - others)  # including the time between attempts
    return summary


def _off_s(records: Sequence[Record]) -> float:
    """Seconds before the starts of drivers in which no record was under way."""
    off_s, heard = 0.0, _last_heard(records[0])
    for before, record in pairwise(records):
        if record.is_first and record.attempt != before.attempt:
            off_s += max(0.0, record.started - heard)
        heard = max(heard, _last_heard(record))
    return off_s


def _last_heard(record: Record) -> float:
    """A start is a sign of life, too: the clock may have been set back since."""
    return max(record.started, record.beat)


def _resumed_at(records: Sequence[Record]) -> list[int | None]:
    """For each record, the lowest step at which a later record of its stage began."""
    first: dict[str, int] = {}
    found: list[int | None] = []
    for record in reversed(records):
        found.append(first.get(record.stage))
        if record.marks:
            begin = record.marks[0].step
            first[record.stage] = min(first.get(record.stage, begin), begin)
    return found[::-1]


def _spent(record: Record, resumed: int | None, inside_s: float) -> tuple[dict[str, float], int]:
    """Seconds by category, which add up to `inside_s`, and how many steps a later record repeated."""
    if record.start_up_s is None:
        return {START_UP: inside_s}, record.steps_redone
    last = record.marks[-1]
    kept, redone = last, record.steps_redone
    if resumed is not None and resumed < last.step:
        kept = _at(record.marks, resumed)
        redone += last.step - max(resumed, record.marks[0].step)
    spent = {
        PRODUCTIVE: kept.productive_s,
        DATA_STALL: kept.data_stall_s,
        CHECKPOINT_STALL: kept.checkpoint_stall_s,
        START_UP: record.start_up_s,
        LOST: record.lost_s + last.total_s - kept.total_s,
    }
    known_s = sum(spent.values())
    if known_s > inside_s:  # an overlap, or a clock that was set back
        return {category: seconds * inside_s / known_s for category, seconds in spent.items()}, redone
    return {**spent, IDLE: inside_s - known_s}, redone


def _count(summary: LedgerSummary, record: Record, category: str, seconds: float) -> None:
    gpu_hours = seconds * record.gpus / SECONDS_PER_HOUR
    summary.seconds[category] += seconds
    summary.worker_seconds[category] += seconds * record.world_size
    summary.gpu_hours[category] += gpu_hours
    if record.price_per_gpu_hour is not None:
        if summary.cost is None:
            summary.cost = dict.fromkeys(CATEGORIES, 0.0)
        summary.cost[category] += gpu_hours * record.price_per_gpu_hour


def _at(marks: Sequence[Mark], step: int) -> Mark:
    """The mark after `step` steps, interpolated between its neighbours."""
    steps = [mark.step for mark in marks]
    columns = zip(*(mark[1:] for mark in marks), strict=True)
    return Mark(step, *(float(np.interp(step, steps, column)) for column in columns))
