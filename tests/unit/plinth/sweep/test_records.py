"""A sweep's records: written, read, ranked, damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from plinth.errors import StorageError
from plinth.storage import Storage
from plinth.sweep.records import (
    SWEEP_KEY,
    TRIALS,
    Report,
    Status,
    SweepRecord,
    TrialHistory,
    TrialRecord,
    best_first,
    read_sweep,
    read_trials,
    status_now,
    write_history,
    write_sweep,
    write_trial,
)

NAN = float("nan")


def report(step: int, loss: float, stage: str = "main") -> Report:
    return Report(stage, step, step * 8, float(step), {"loss": loss})


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Three trials; the second has not reported, the third diverged."""
    storage = Storage.from_uri(tmp_path)
    losses = {0: [3.0, 2.0, 2.5], 1: [], 2: [NAN, NAN]}
    for index, values in losses.items():
        write_trial(storage, TrialRecord(index, {"lr": index}, Status.finished, "" if values else "died"))
        if values:
            said = TrialHistory({"lr": index}, [report(i + 1, loss) for i, loss in enumerate(values)])
            write_history(storage.child(TRIALS).child(f"{index:03d}"), said)
    return storage


def test_trials_are_read_back_and_ranked(storage: Storage) -> None:
    trials = read_trials(storage)
    assert [t.record.name for t in trials] == ["000", "001", "002"]
    assert trials[0].best("loss", "min") == 2.0
    assert trials[0].best("loss", "max") == 3.0
    assert trials[0].last("loss") == 2.5
    assert trials[1].last("loss") is None
    assert trials[1].history.values == {"lr": 1}
    assert trials[2].best("loss", "min") is None
    assert [t.record.index for t in best_first(trials, "loss", "min")] == [0]


def test_steps_add_up_over_stages() -> None:
    said = TrialHistory({}, [report(5, 1, "warmup"), report(9, 1, "warmup"), report(4, 1)])
    assert said.steps == 13


def test_sweep_record_is_read_back_and_damage_is_named(tmp_path: Path) -> None:
    storage = Storage.from_uri(tmp_path)
    assert read_sweep(storage) is None
    record = SweepRecord("s", "loss", "min", "asha", "random", 0, 4, {"lr": [1]}, 96)
    write_sweep(storage, record)
    assert read_sweep(storage) == record
    storage.write(SWEEP_KEY, b'{"name": "s"}')
    with pytest.raises(StorageError, match=r"sweep\.json cannot be read"):
        read_sweep(storage)


def test_sweep_without_heartbeat_is_interrupted() -> None:
    record = SweepRecord("s", "loss", "min", "asha", "random", 0, 4, {}, 96, beat=1000.0, beat_every_s=10.0)
    assert status_now(record, 1050.0) == "running"
    assert status_now(record, 1070.0) == "interrupted"
    record.status = "finished"
    assert status_now(record, 1070.0) == "finished"


def test_damaged_trial_record_is_named(storage: Storage) -> None:
    storage.write(f"{TRIALS}/001/trial.json", b"{")
    with pytest.raises(StorageError, match=r"trials/001/trial\.json cannot be read"):
        read_trials(storage)
