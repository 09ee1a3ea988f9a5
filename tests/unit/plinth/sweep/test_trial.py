"""A trial without Tune: its replayed and new reports, and cloning another trial."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plinth.checkpoint.store import COMMIT_KEY, folder_name, latest
from plinth.errors import CheckpointError, StorageError
from plinth.storage import Storage
from plinth.sweep.records import (
    TRIALS,
    Measured,
    Report,
    StageLength,
    TrialHistory,
    Values,
    read_history,
    write_history,
)
from plinth.sweep.trial import IS_FINISHED, OBJECTIVE, TIME, TRIAL, Training, TrialRun, TrialTask

LENGTHS = {"toy": StageLength(steps=4, samples=8, every=2)}
VALUES_NOW = {"lr": 0.1}
WEIGHTS = "rank-0/weights"


class FakePlacement:
    """Where a training that reports these summaries, one per poll, runs."""

    def __init__(self, summaries: list[dict[str, Any]]) -> None:
        self._summaries = list(summaries)
        self._over = threading.Event()

    def train(self, placement: Any) -> None:
        self._over.wait(60)

    def reports(self) -> list[dict[str, Any]]:
        found = [self._summaries.pop(0)] if self._summaries else []
        if not self._summaries:
            self._over.set()
        return found

    def request_stop(self) -> None:
        self._over.set()


def training(summaries: list[dict[str, Any]]) -> Callable[..., Training]:
    def start(*_: Any) -> Training:
        placement = FakePlacement(summaries)
        return Training(placement.train, placement)  # type: ignore[arg-type]

    return start


def lengths(values: Values) -> dict[str, StageLength]:
    assert not values.get("known"), "known lengths are not asked for again"
    return LENGTHS


def no_training(*_: Any) -> Training:
    raise AssertionError("nothing is trained here")


def report(step: int, loss: float = 1.0) -> Report:
    return Report("toy", step, 2 * step, 1.0, {"loss": loss})


@pytest.fixture
def sweep(tmp_path: Path) -> Storage:
    return Storage.from_uri(tmp_path)


def trial(
    sweep: Storage,
    index: int,
    values: Values = VALUES_NOW,
    start: Callable[..., Training] = no_training,
    measure: Callable[[Storage, str, int], dict[str, Measured]] | None = None,
) -> TrialRun:
    task = TrialTask(sweep, no_training, lengths, 4.0, "loss", "min", measure)
    return TrialRun(task, index, values, start)


def folder(sweep: Storage, name: str) -> Storage:
    return sweep.child(TRIALS).child(name)


def save(sweep: Storage, name: str, step: int) -> None:
    stored = folder(sweep, name).child("toy/checkpoints").child(folder_name(step))
    stored.write(WEIGHTS, f"of {name}".encode())
    stored.write(COMMIT_KEY, b"{}")


def history_of(sweep: Storage, name: str) -> TrialHistory:
    found = read_history(folder(sweep, name))
    assert found is not None
    return found


def write_metrics(sweep: Storage, name: str, steps: int) -> list[dict[str, Any]]:
    """A run's own metrics; the loss of a step is its number. Returns what its worker reports: at the due
    steps 2 and 4, and at step 3, where it saved because it was stopped."""
    line = {"lr": 0.1, "grad_norm": 1.0, "samples": 2, "terms": {"view": 5.0}}
    lines = [json.dumps(line | {"step": step, "loss": float(step)}) for step in range(steps)]
    folder(sweep, name).child("toy").write("metrics.jsonl", "\n".join(lines).encode() + b"\n")
    return [{"stage": "toy", "step": step, "samples": 2 * step, "loss": -1.0} for step in range(2, steps + 1)]


def new_reports(sweep: Storage, run: TrialRun, name: str = "000") -> list[tuple[int, float]]:
    """(step, loss) of the reports that the trial makes from here to its end."""
    before = read_history(folder(sweep, name))
    while not run.next_result()["done"]:
        pass
    reports = history_of(sweep, name).reports[len(before.reports) if before else 0 :]
    return [(one.step, one.metrics["loss"]) for one in reports]


def test_trial_replays_reports_after_restart(sweep: Storage) -> None:
    values = VALUES_NOW | {"known": True}
    history = TrialHistory(values, [report(2, 3.0), report(4, math.nan)], lengths=LENGTHS, is_finished=True)
    write_history(folder(sweep, "000"), history)
    again = trial(sweep, 0, values)
    assert again.next_result() == {OBJECTIVE: 3.0, TIME: 2.0, IS_FINISHED: False, "done": False}
    assert again.next_result() == {OBJECTIVE: math.inf, TIME: 4.0, IS_FINISHED: True, "done": True}


def test_trial_continues_at_its_position(sweep: Storage) -> None:
    write_history(folder(sweep, "000"), TrialHistory(VALUES_NOW, [report(1), report(2, 2.0), report(3)]))
    there = trial(sweep, 0)
    assert there.next_result()[OBJECTIVE] == 1.0
    assert there.position() == {TRIAL: "000", "reports": 1}
    later = trial(sweep, 0)
    later.move_to(there.position())
    assert later.next_result()[OBJECTIVE] == 2.0


def test_interrupted_clone_is_done_again(sweep: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    save(sweep, "000", 4)
    save(sweep, "001", 3)
    write_history(folder(sweep, "001"), TrialHistory(VALUES_NOW, [report(1), report(3)]))
    heir = trial(sweep, 1, {"lr": 0.2})

    def cut_off(self: Storage, local_path: str | Path, key: str) -> None:
        raise StorageError("the process is gone.")

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "upload", cut_off)
        with pytest.raises(StorageError):
            heir.move_to({TRIAL: "000", "reports": 2})
    own = folder(sweep, "001").child("toy/checkpoints")
    assert latest(own) is None
    history = history_of(sweep, "001")
    assert (history.values, history.adopting, history.donors) == ({"lr": 0.2}, "000", [])

    trial(sweep, 1, history.values)
    history = history_of(sweep, "001")
    assert (history.adopting, history.donors) == ("", ["000 at 4"])
    assert latest(own) == 4
    assert own.read(f"{folder_name(4)}/{WEIGHTS}") == b"of 000"


def test_donors_steps_are_not_reported_as_own(sweep: Storage) -> None:
    summaries = write_metrics(sweep, "001", 4)
    write_metrics(sweep, "000", 4)
    save(sweep, "000", 2)
    heir = trial(sweep, 1, {"lr": 0.2}, training(summaries))
    heir.move_to({TRIAL: "000", "reports": 1})
    assert new_reports(sweep, heir, "001") == [(4, -1.0)]


def test_trial_reports_at_due_steps_only(sweep: Storage) -> None:
    summaries = write_metrics(sweep, "000", 4)
    assert new_reports(sweep, trial(sweep, 0, start=training(summaries))) == [(2, -1.0), (4, -1.0)]


def test_step_trained_again_is_not_reported_again(sweep: Storage) -> None:
    """Killed after the report of step 2, before its checkpoint was committed."""
    summaries = write_metrics(sweep, "000", 4)
    write_history(folder(sweep, "000"), TrialHistory(VALUES_NOW, [report(2)]))
    run = trial(sweep, 0, start=training(summaries))
    run.next_result()  # the replayed one
    assert new_reports(sweep, run) == [(4, -1.0)]


def test_missed_report_is_made_from_the_runs_metrics(sweep: Storage) -> None:
    """Stopped after 3 steps, before the report of step 2 was taken; then resumed."""
    _, _, last = write_metrics(sweep, "000", 4)
    save(sweep, "000", 3)
    assert new_reports(sweep, trial(sweep, 0, start=training([last]))) == [(2, 0.5), (4, 2.5)]


def test_removed_checkpoint_is_not_measured(sweep: Storage, caplog: pytest.LogCaptureFixture) -> None:
    """The checkpoint of step 4 is there, and that of step 2 was removed to make room for it."""
    summaries = write_metrics(sweep, "000", 4)

    def start(*_: Any) -> Training:
        save(sweep, "000", 4)
        return training(summaries)()

    def measure(run: Storage, stage: str, step: int) -> dict[str, Measured]:
        if step != 4:
            raise CheckpointError("no such checkpoint.")
        return {"loss": Measured(7.0, 6.0, 8.0), "probe": Measured(0.5, math.nan, math.nan)}

    with caplog.at_level(logging.WARNING, logger="plinth"):
        assert new_reports(sweep, trial(sweep, 0, start=start, measure=measure)) == [(4, 7.0)]
    assert "step 2 was removed before it could be measured" in caplog.text
    (report,) = history_of(sweep, "000").reports
    assert report.metrics["probe"] == 0.5
    assert report.intervals == {"loss": [6.0, 8.0]}, "one that is not known is left out"


def test_error_of_the_training_reaches_tune(sweep: Storage) -> None:
    def fail(placement: Any) -> None:
        raise CheckpointError("damaged.")

    run = trial(sweep, 0, start=lambda *_: Training(fail, FakePlacement([])))  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="damaged"):
        run.next_result()


def test_stopped_trial_ends_its_training(sweep: Storage) -> None:
    summaries = write_metrics(sweep, "000", 4)
    started: list[Training] = []
    run = trial(sweep, 0, start=lambda *_: started.append(training(summaries)()) or started[0])
    run.next_result()
    run.stop()
    assert not started[0].is_running


def test_training_that_ends_without_a_checkpoint_is_an_error(sweep: Storage) -> None:
    with pytest.raises(RuntimeError, match="has ended without a checkpoint"):
        trial(sweep, 0, start=training([])).next_result()
