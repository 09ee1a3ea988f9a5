"""A trial as Tune's actor, without Tune: what it says again, and whose checkpoints it takes over."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from plinth.errors import StorageError
from plinth.storage import Storage
from plinth.sweep.records import TRIALS, Report, TrialReports, Values, read_reports, write_reports
from plinth.sweep.trial import INDEX, IS_FINISHED, OBJECTIVE, POINTER, TIME, TRIAL, VALUES, Trial, TrialTask
from plinth.train.checkpoint_store import COMMIT_KEY, folder_name, latest

LENGTH = 8
VALUES_NOW = {"lr": 0.1}


def lengths(values: Values) -> dict[str, int]:
    assert not values.get("known"), "what is known is not asked for again"
    return {"toy": LENGTH}


def no_training(*_: Any) -> None:
    raise AssertionError("nothing is trained here")


def report(step: int, loss: float = 1.0) -> Report:
    return Report("toy", step, 2 * step, 1.0, {"loss": loss})


@pytest.fixture
def sweep(tmp_path: Path) -> Storage:
    return Storage.from_uri(tmp_path)


def trial(sweep: Storage, index: int, values: Values = VALUES_NOW) -> Trial:
    made = Trial.__new__(Trial)  # Trainable's own constructor asks for Ray
    task = TrialTask(sweep, no_training, lengths, 4.0, "loss", "min", None)
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
    said = TrialReports(values, [report(2, 3.0), report(4, math.nan)], is_finished=True)
    said.lengths = {"toy": LENGTH}
    write_reports(folder(sweep, "000"), said)
    again = trial(sweep, 0, values)
    assert again.step() == {OBJECTIVE: 3.0, TIME: 2.0, IS_FINISHED: False, "done": False}
    assert again.step() == {OBJECTIVE: math.inf, TIME: 4.0, IS_FINISHED: True, "done": True}


def test_it_goes_on_where_its_pointer_is(sweep: Storage, tmp_path: Path) -> None:
    write_reports(folder(sweep, "000"), TrialReports(VALUES_NOW, [report(1), report(2, 2.0), report(3)]))
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
    write_reports(folder(sweep, "001"), TrialReports(VALUES_NOW, [report(1), report(3)]))
    heir = trial(sweep, 1, {"lr": 0.2})

    def cut_off(self: Storage, local_path: str | Path, key: str) -> None:
        raise StorageError("the process is gone.")

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "upload", cut_off)
        with pytest.raises(StorageError):
            heir.load_checkpoint(pointed_at("000", 2, tmp_path))
    own = folder(sweep, "001").child("toy/checkpoints")
    assert latest(own) is None

    said = read_reports(folder(sweep, "001"))
    assert said is not None
    assert (said.values, said.adopting, said.donors) == ({"lr": 0.2}, "000", [])
    trial(sweep, 1, said.values)
    said = read_reports(folder(sweep, "001"))
    assert said is not None
    assert (said.adopting, said.donors) == ("", ["000 at 4"])
    assert latest(own) == 4
    assert own.read(f"{folder_name(4)}/weights") == b"of 000"
