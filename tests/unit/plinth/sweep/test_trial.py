"""A trial as Tune's actor, without Tune: what it says again, and whose checkpoints it takes over."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plinth.checkpoint.store import COMMIT_KEY, folder_name, latest
from plinth.errors import CheckpointError, StorageError
from plinth.storage import Storage
from plinth.sweep.records import (
    TRIALS,
    Report,
    StageLength,
    TrialHistory,
    Values,
    read_history,
    write_history,
)
from plinth.sweep.trial import (
    INDEX,
    IS_FINISHED,
    OBJECTIVE,
    POINTER,
    TIME,
    TRIAL,
    VALUES,
    TrialTask,
    TrialTrainable,
)

LENGTHS = {"toy": StageLength(steps=4, samples=8, every=2)}
VALUES_NOW = {"lr": 0.1}


def lengths(values: Values) -> dict[str, StageLength]:
    assert not values.get("known"), "what is known is not asked for again"
    return LENGTHS


def no_training(*_: Any) -> None:
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
    measure: Callable[[Storage, str, int], dict[str, float]] | None = None,
) -> TrialTrainable:
    made = TrialTrainable.__new__(TrialTrainable)  # Trainable's own constructor asks for Ray
    task = TrialTask(sweep, no_training, lengths, 4.0, "loss", "min", measure)
    made.setup({TRIAL: {INDEX: index, VALUES: values}}, task)
    return made


def folder(sweep: Storage, name: str) -> Storage:
    return sweep.child(TRIALS).child(name)


def save(sweep: Storage, name: str, step: int) -> None:
    stored = folder(sweep, name).child("toy/checkpoints").child(folder_name(step))
    stored.write("weights", f"of {name}".encode())
    stored.write(COMMIT_KEY, b"{}")


def pointed_at(name: str, said: int, where: Path) -> str:
    (where / POINTER).write_text(json.dumps({TRIAL: name, "said": said}))
    return str(where)


def test_it_says_again_what_it_has_said(sweep: Storage) -> None:
    values = VALUES_NOW | {"known": True}
    said = TrialHistory(values, [report(2, 3.0), report(4, math.nan)], is_finished=True)
    said.lengths = LENGTHS
    write_history(folder(sweep, "000"), said)
    again = trial(sweep, 0, values)
    assert again.step() == {OBJECTIVE: 3.0, TIME: 2.0, IS_FINISHED: False, "done": False}
    assert again.step() == {OBJECTIVE: math.inf, TIME: 4.0, IS_FINISHED: True, "done": True}


def test_it_goes_on_where_its_pointer_is(sweep: Storage, tmp_path: Path) -> None:
    write_history(folder(sweep, "000"), TrialHistory(VALUES_NOW, [report(1), report(2, 2.0), report(3)]))
    there = trial(sweep, 0)
    assert there.step()[OBJECTIVE] == 1.0
    there.save_checkpoint(str(tmp_path))
    assert json.loads((tmp_path / POINTER).read_text()) == {TRIAL: "000", "said": 1}
    later = trial(sweep, 0)
    later.load_checkpoint(str(tmp_path))
    assert later.step()[OBJECTIVE] == 2.0


def test_taking_over_that_was_cut_off_is_done_again(
    sweep: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(sweep, "000", 4)
    save(sweep, "001", 3)
    write_history(folder(sweep, "001"), TrialHistory(VALUES_NOW, [report(1), report(3)]))
    heir = trial(sweep, 1, {"lr": 0.2})

    def cut_off(self: Storage, local_path: str | Path, key: str) -> None:
        raise StorageError("the process is gone.")

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "upload", cut_off)
        with pytest.raises(StorageError):
            heir.load_checkpoint(pointed_at("000", 2, tmp_path))
    own = folder(sweep, "001").child("toy/checkpoints")
    assert latest(own) is None

    said = read_history(folder(sweep, "001"))
    assert said is not None
    assert (said.values, said.adopting, said.donors) == ({"lr": 0.2}, "000", [])
    trial(sweep, 1, said.values)
    said = read_history(folder(sweep, "001"))
    assert said is not None
    assert (said.adopting, said.donors) == ("", ["000 at 4"])
    assert trial(sweep, 1, said.values)._missed() == [], "the donor's steps are not its own"
    assert latest(own) == 4
    assert own.read(f"{folder_name(4)}/weights") == b"of 000"


def trained(sweep: Storage, name: str, steps: int) -> list[dict[str, Any]]:
    """A run's own record; the loss of a step is its number. Returns what its worker says at checkpoints after
    2 steps and at the end, and at one that it made in between because it was stopped."""
    line = {"lr": 0.1, "grad_norm": 1.0, "samples": 2, "terms": {"view": 5.0}}
    lines = [json.dumps(line | {"step": step, "loss": float(step)}) for step in range(steps)]
    folder(sweep, name).child("toy").write("metrics.jsonl", "\n".join(lines).encode() + b"\n")
    return [{"stage": "toy", "step": step, "samples": 2 * step, "loss": -1.0} for step in range(2, steps + 1)]


def going_on(made: TrialTrainable, said: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """(step, loss) of the reports of a trial whose training says that and ends."""
    made._placement = SimpleNamespace(reports=lambda: [said.pop(0)] if said else [])  # type: ignore[assignment]
    made._pending.extend((summary, False) for summary in made._missed())
    over = SimpleNamespace(is_alive=lambda: bool(said))
    found = []
    while (report := made._next(over)) is not None:  # type: ignore[arg-type]
        found.append((report.step, report.metrics["loss"]))
    return found


def test_it_reports_where_it_is_due_whatever_else_was_saved(sweep: Storage) -> None:
    said = trained(sweep, "000", 4)
    assert going_on(trial(sweep, 0), said) == [(2, -1.0), (4, -1.0)]


def test_what_is_done_again_is_not_said_again(sweep: Storage) -> None:
    """Killed after it had reported, before that checkpoint counted."""
    said = trained(sweep, "000", 4)
    write_history(folder(sweep, "000"), TrialHistory(VALUES_NOW, [report(2)]))
    assert going_on(trial(sweep, 0), said) == [(4, -1.0)]


def test_cut_between_two_reports_it_says_what_it_would_have_said(sweep: Storage) -> None:
    """Stopped after 3 steps, before anybody took the report of the second; then it goes on."""
    _, _, last = trained(sweep, "000", 4)
    save(sweep, "000", 3)
    assert going_on(trial(sweep, 0), [last]) == [(2, 0.5), (4, 2.5)]


def test_a_checkpoint_that_is_gone_is_not_measured(sweep: Storage, caplog: pytest.LogCaptureFixture) -> None:
    said = trained(sweep, "000", 4)
    save(sweep, "000", 4)  # and the one before was removed to make room for it

    def measure(run: Storage, stage: str, step: int) -> dict[str, float]:
        if step != 4:
            raise CheckpointError("no such checkpoint.")
        return {"loss": 7.0}

    made = trial(sweep, 0, measure=measure)
    made._missed = list  # type: ignore[method-assign, assignment]
    with caplog.at_level(logging.WARNING, logger="plinth"):
        assert going_on(made, said) == [(4, 7.0)]
    assert "step 2 was removed before it could be measured" in caplog.text
