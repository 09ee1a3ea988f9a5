"""The ledger: every second once, what a restart or a rollback lost, and storage that is away."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plinth.errors import ConfigError, StorageError
from plinth.observe import ledger
from plinth.observe.config import LedgerConfig
from plinth.observe.failures import VANISHED, Failure
from plinth.observe.ledger import CATEGORIES, Ledger, LedgerSummary, Mark, Record, add_up, summarise
from plinth.storage import Storage

START = 1_000_000.0
SILENT_S = 1e6


@dataclass
class Clock:
    """Stands in for the module `time` in the ledger."""

    now: float = START

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(ledger, "time", found)
    return found


def open_ledger(
    storage: Any, clock: Clock, attempt: str = "a", stage: str = "main", **changes: Any
) -> Ledger:
    values = {"world_size": 2, "gpus": 2, "started": clock.now, "beat": clock.now, **changes}
    return Ledger(storage, Record(attempt, stage, **{"beat_every_s": SILENT_S, **values}))


def steps(book: Ledger, clock: Clock, which: range, step_s: float = 2.0, wait_s: float = 0.5) -> None:
    for step in which:
        clock.now += step_s
        book.step(step, step_s, wait_s, 0.0)


def seconds(summary: LedgerSummary) -> dict[str, float]:
    assert sum(summary.seconds.values()) == pytest.approx(summary.wall_s, abs=1e-5)
    return {name: round(value, 3) for name, value in summary.seconds.items() if value}


def test_an_undisturbed_run(tmp_path: Path, clock: Clock) -> None:
    storage = Storage.from_uri(tmp_path)
    book = open_ledger(storage, clock)
    clock.now += 10
    steps(book, clock, range(4))
    clock.now += 3
    book.committed(4)
    clock.now += 2
    book.step(4, 2.0, 0.5, checkpoint_s=3.0)
    clock.now += 1.25
    book.close(ledger.FINISHED, checkpoint_s=1.0)
    summary = summarise(storage)
    assert seconds(summary) == {
        "start_up": 10, "productive": 7.5, "data_stall": 2.5, "checkpoint_stall": 4, "idle": 0.25,
    }  # fmt: skip
    assert summary.wall_s == pytest.approx(24.25)
    assert (summary.restarts, summary.steps_redone, summary.cost) == (0, 0, None)
    assert summary.worker_seconds["productive"] == pytest.approx(15)
    assert summary.share("productive") == pytest.approx(7.5 / 24.25)
    (record,) = ledger.read_records(storage)
    assert (record.outcome, record.marks) == ("finished", [Mark(0), Mark(4, 6, 2, 3), Mark(5, 7.5, 2.5, 4)])


def test_ledger_counts_repeated_steps_after_kill_as_lost(tmp_path: Path, clock: Clock) -> None:
    storage = Storage.from_uri(tmp_path)
    book = open_ledger(storage, clock)
    clock.now += 5
    steps(book, clock, range(10))
    book.committed(6)  # later than the step: the upload took four steps
    killed = book.record()
    book.close("")
    storage.write("ledger/a-main.json", json.dumps(ledger.asdict(killed)).encode())
    clock.now += 7
    book = open_ledger(storage, clock, "b", gpus=1, world_size=1, price_per_gpu_hour=3.6)
    clock.now += 4
    steps(book, clock, range(6, 12))
    book.close(ledger.FINISHED)
    summary = summarise(storage)
    assert seconds(summary) == {"start_up": 9, "productive": 18, "data_stall": 6, "lost": 8, "idle": 7}
    assert (summary.restarts, summary.steps_redone) == (1, 4)
    assert summary.gpu_hours["idle"] == 0
    assert summary.gpu_hours["lost"] == pytest.approx(16 / 3600)
    assert summary.cost is not None
    assert sum(summary.cost.values()) == pytest.approx(16 / 3600 * 3.6), "only the second had a price"
    assert summarise(storage, now=clock.now + 9).seconds["idle"] == pytest.approx(16)


@pytest.mark.parametrize("is_first", [True, False])
def test_a_run_that_is_resumed_later_was_off_in_between(is_first: bool, tmp_path: Path, clock: Clock) -> None:
    storage = Storage.from_uri(tmp_path)
    for attempt, stage in (("a", "warmup"), ("b", "warmup"), ("b", "main")):
        clock.now += 1000 if attempt == "b" and stage == "warmup" else 0
        book = open_ledger(storage, clock, attempt, stage, is_first=is_first)
        clock.now += 5
        steps(book, clock, range(2))
        book.close(ledger.STOPPED)
    summary = summarise(storage)
    assert (summary.off_s, summary.wall_s) == ((1000, 27) if is_first else (0, 1027))
    assert seconds(summary).get("idle", 0) == (0 if is_first else 1000)


def test_ledger_of_rollback_inside_attempt(tmp_path: Path, clock: Clock) -> None:
    storage = Storage.from_uri(tmp_path)
    book = open_ledger(storage, clock)
    steps(book, clock, range(5))
    book.committed(3)
    steps(book, clock, range(5, 7))
    steps(book, clock, range(3, 6))
    book.close(ledger.FINISHED)
    summary = summarise(storage)
    assert seconds(summary) == {"productive": 9, "data_stall": 3, "lost": 8}
    assert summary.steps_redone == 4


def test_ledger_counts_second_stage_once(tmp_path: Path, clock: Clock) -> None:
    storage = Storage.from_uri(tmp_path)
    first = open_ledger(storage, clock, stage="warmup")
    steps(first, clock, range(3))
    first.close(ledger.FINISHED)
    second = open_ledger(storage, clock)
    clock.now += 1
    steps(second, clock, range(3))
    second.close(ledger.FINISHED)
    summary = summarise(storage)
    assert seconds(summary) == {"start_up": 1, "productive": 9, "data_stall": 3}
    assert summary.restarts == 0, "steps of another stage, of the same attempt"
    assert summary.steps_redone == 0


def test_an_attempt_that_outlives_the_start_of_the_next_gives_way(clock: Clock) -> None:
    zombie = Record("a", "main", 1, 0, START, START + 20, 1, start_up_s=0, marks=[Mark(0), Mark(10, 20)])
    heir = Record("b", "main", 1, 0, START + 10, START + 15, 1, start_up_s=1, marks=[Mark(5), Mark(9, 4)])
    assert seconds(add_up([zombie, heir])) == {"productive": 9, "lost": 5, "start_up": 1, "idle": 5}


def test_only_the_last_checkpoints_are_marked(tmp_path: Path, clock: Clock) -> None:
    book = open_ledger(Storage.from_uri(tmp_path), clock)
    for step in range(3 * ledger.MARKS_KEPT):
        steps(book, clock, range(step, step + 1))
        book.committed(step + 1)
    marks = book.record().marks
    assert len(marks) == ledger.MARKS_KEPT + 1
    assert marks[0] == Mark(0)
    assert marks[-1].step == 3 * ledger.MARKS_KEPT
    book.close(ledger.FINISHED)


def test_without_checkpoints_it_stays_small_and_right(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "RECENT_KEPT", 16)
    book = open_ledger(Storage.from_uri(tmp_path), clock)
    steps(book, clock, range(101))
    assert len(book._recent) <= 17
    book.committed(50)
    assert book.record().marks == [Mark(0), Mark(50, 75, 25), Mark(101, 151.5, 50.5)]
    book.close(ledger.FINISHED)


def test_ledger_survives_storage_outage(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(key: str, data: bytes) -> None:
        raise StorageError("the store is away.")

    with caplog.at_level(logging.WARNING, logger="plinth"):
        book = open_ledger(SimpleNamespace(write=refuse), clock, beat_every_s=0.01)
        steps(book, clock, range(3))
        book.close(ledger.FAILED)
        book.close(ledger.FINISHED)
    assert book.record().outcome == "failed", "the first close counts"
    assert caplog.messages == ["the ledger cannot be written, trying again every 0.01 s: the store is away."]


def test_ledger_is_written_while_attempt_runs(tmp_path: Path) -> None:
    storage = Storage.from_uri(tmp_path)
    book = Ledger(storage, Record("a", "main", 1, 0, START, START, beat_every_s=0.01))
    try:
        while not storage.exists("ledger/a-main.json"):
            time.sleep(0.01)
        (record,) = ledger.read_records(storage)
        assert (record.outcome, record.marks, record.start_up_s) == ("running", [], None)
        assert summarise(storage).seconds["start_up"] > 0, "an attempt that dies before its first step"
    finally:
        book.close(ledger.STOPPED)


def test_ledger_writes_first_step_and_commits_at_once(tmp_path: Path, clock: Clock) -> None:
    def written(until: int) -> None:
        while not (found := ledger.read_records(storage)) or len(found[0].marks) < until:
            time.sleep(0.01)

    storage = Storage.from_uri(tmp_path)
    book = open_ledger(storage, clock)  # no beat for days
    steps(book, clock, range(1))
    written(2)
    steps(book, clock, range(1, 4))
    book.committed(2)
    written(3)
    (record,) = ledger.read_records(storage)
    assert [mark.step for mark in record.marks] == [0, 2, 4]
    book.close(ledger.FINISHED)


def test_ledger_extends_killed_attempt_by_last_batches(tmp_path: Path) -> None:
    storage = Storage.from_uri(tmp_path)
    done = [Mark(0), Mark(4, 4.0), Mark(5, 5.0)]
    later = [Mark(4), Mark(6, 2.0)]
    for record in (
        Record("a", "warmup", 1, 0, START - 3, START, 10, outcome="finished", start_up_s=0, marks=[Mark(0)]),
        Record("a", "main", 1, 0, START, START + 6, 10, start_up_s=1, marks=done),
        Record("b", "main", 1, 0, START + 20, START + 22, 10, start_up_s=0, marks=later),
    ):
        storage.write(
            f"ledger/{record.attempt}-{record.stage}.json", json.dumps(ledger.asdict(record)).encode()
        )
    alone = summarise(storage)
    assert (seconds(alone)["lost"], alone.steps_redone) == (1, 1)
    gone = Failure("a", 0, "node-1", 1, START + 9, VANISHED, step=8)
    storage.write("logs/a-rank0.failure.json", json.dumps(ledger.asdict(gone)).encode())
    told = summarise(storage)
    assert seconds(told) == {"productive": 6, "start_up": 1, "lost": 4, "idle": 14}
    assert told.steps_redone == 4


def test_unreadable_ledger_record_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = Storage.from_uri(tmp_path)
    storage.write("ledger/a-main.json", b'{"attempt": "a"')
    storage.write("ledger/b-main.json", b'{"attempt": "b"}')
    with caplog.at_level(logging.WARNING, logger="plinth"):
        assert summarise(storage) == LedgerSummary()
    assert [message.split()[0].rsplit("/", 1)[1] for message in caplog.messages] == [
        "a-main.json",
        "b-main.json",
    ]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (LedgerConfig(beat_every_s=0), r"ledger\.beat_every_s is 0"),
        (LedgerConfig(price_per_gpu_hour=-1), r"ledger\.price_per_gpu_hour is -1"),
    ],
)
def test_settings_out_of_range_are_refused(config: LedgerConfig, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config.validate()


# -- over random histories ------------------------------------------------------------------------------

DURATION = st.floats(0, 1000, allow_nan=False)


@st.composite
def marks(draw: st.DrawFn) -> list[Mark]:
    found = [Mark(draw(st.integers(0, 50)))]
    for _ in range(draw(st.integers(0, 4))):
        last = found[-1]
        found.append(
            Mark(last.step + draw(st.integers(1, 20)), *(value + draw(DURATION) for value in last[1:]))
        )
    return found


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Anything that a file may hold, also clocks that disagree and attempts that overlap."""
    started = START + draw(DURATION)
    begun = draw(st.booleans())
    return Record(
        draw(st.sampled_from("abcd")), draw(st.sampled_from(["warmup", "main"])), draw(st.integers(1, 8)),
        draw(st.integers(0, 8)), started, started + draw(st.floats(-10, 1000)), 10.0,
        draw(st.sampled_from([None, 2.5])), start_up_s=draw(DURATION) if begun else None,
        lost_s=draw(DURATION) if begun else 0.0, is_first=draw(st.booleans()),
        marks=draw(marks()) if begun else [],
    )  # fmt: skip


@settings(deadline=None)  # on a busy machine
@example(
    [
        Record("b", "warmup", 1, 0, START, START, 10.0),
        Record("a", "warmup", 1, 0, START + 1, START, 10.0, is_first=True),
    ],
    None,
)
@given(st.lists(records(), max_size=8), st.none() | DURATION)
def test_ledger_categories_add_up_to_wall_time(found: list[Record], later: float | None) -> None:
    found.sort(key=lambda record: (record.started, record.beat))
    summary = add_up(found, None if later is None else START + later)
    assert set(summary.seconds) == set(CATEGORIES)
    assert sum(summary.seconds.values()) == pytest.approx(summary.wall_s, rel=1e-9, abs=1e-5)
    for amounts in (summary.seconds, summary.worker_seconds, summary.gpu_hours, summary.cost or {}):
        assert min(amounts.values(), default=0) >= 0
    if found and later is None:
        ended = max(max(record.started, record.beat) for record in found)
        assert summary.wall_s + summary.off_s == pytest.approx(ended - found[0].started)


@dataclass
class Attempt:
    """What is drawn of a simulated attempt."""

    wait_s: float
    start_up_s: float
    took: list[tuple[float, float, float]]
    """Of each step: with its wait, the wait, the checkpoint before it."""
    every: int
    upload_steps: int
    done: list[tuple[int, float]] = field(default_factory=list)
    """Filled by the simulation: step and its seconds."""


ATTEMPTS = st.builds(
    Attempt,
    wait_s=DURATION,
    start_up_s=DURATION,
    took=st.lists(st.tuples(st.floats(1, 9), st.floats(0, 1), st.floats(0, 5)), max_size=30),
    every=st.integers(1, 8),
    upload_steps=st.integers(0, 5),
)


@settings(deadline=None)
@given(st.lists(ATTEMPTS, min_size=1, max_size=5))
def test_kills_at_any_time_against_a_count_by_hand(history: list[Attempt]) -> None:
    clock, found, durable = Clock(), [], 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "time", clock)
        for number, attempt in enumerate(history):
            clock.now += attempt.wait_s if number else 0
            nowhere = SimpleNamespace(write=lambda key, data: None)
            book = open_ledger(nowhere, clock, f"attempt-{number}")
            clock.now += attempt.start_up_s
            begin = durable
            for step, (step_s, wait_s, checkpoint_s) in enumerate(attempt.took, start=begin):
                held_s = checkpoint_s if step > begin and (step - begin) % attempt.every == 0 else 0.0
                clock.now += step_s + held_s
                book.step(step, step_s, wait_s, held_s)
                attempt.done.append((step, step_s))
                uploaded = step + 1 - attempt.upload_steps
                if uploaded > begin and (uploaded - begin) % attempt.every == 0:
                    book.committed(uploaded)
                    durable = uploaded
            found.append(book.record())
            book.close(ledger.FAILED)
    summary = add_up(found)
    lost_s = redone = 0.0
    for number, attempt in enumerate(history):
        begun = min((later.done[0][0] for later in history[number + 1 :] if later.done), default=10**9)
        lost_s += sum(step_s for step, step_s in attempt.done if step >= begun)
        redone += sum(step >= begun for step, _ in attempt.done)
    trained_s = sum(step_s for attempt in history for _, step_s in attempt.done)
    kept_s = summary.seconds["productive"] + summary.seconds["data_stall"]
    assert summary.steps_redone == redone
    assert kept_s == pytest.approx(trained_s - lost_s, abs=1e-4)
    assert summary.seconds["start_up"] == pytest.approx(sum(a.start_up_s for a in history), abs=1e-4)
    assert summary.seconds["idle"] == pytest.approx(sum(a.wait_s for a in history[1:]), abs=1e-4)
    assert summary.wall_s == pytest.approx(clock.now - START)
