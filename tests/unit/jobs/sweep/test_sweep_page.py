"""The sweep page: all that is known, self-contained, names and values as text."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.sweep.page import write_page
from plinth.errors import StorageError
from plinth.storage import Storage
from plinth.sweep.records import Report, Status, TrialRecord, read_sweep, write_sweep
from tests.helpers.run_folder import NOW
from tests.helpers.snapshots import assert_snapshot
from tests.helpers.sweep_folder import LR, MODE, asha_sweep, sweep, trial


def written(storage: Storage) -> str:
    assert write_page(storage, NOW) == f"{storage.uri}/index.html"
    return storage.read("index.html").decode()


def test_page_of_a_finished_sweep(tmp_path: Path) -> None:
    text = written(asha_sweep(tmp_path, gpus=1))
    assert not re.findall(r"<link|@import|url\(['\"]?http|src=|http-equiv", text)
    assert text.count("<svg") == 1
    shown = re.sub(r"(\d+\.\d|\d+)%", "..%", text.replace(str(tmp_path), "/folder"))  # shares are optuna's
    assert_snapshot(shown, Path(__file__).with_name("sweep_page.html"))


def test_names_values_and_messages_are_shown_as_text(tmp_path: Path) -> None:
    script = "<script>alert(1)</script>"
    storage = sweep(tmp_path / script[:8], 2)
    record = read_sweep(storage)
    assert record is not None
    write_sweep(storage, replace(record, name=script, metric=script, status=script))
    reports = [Report("main", 1, 32, 1.0, {script: 1.0})]
    trial(storage, TrialRecord(0, {MODE: script, LR: 1e-3}, Status.finished), reports)
    trial(storage, TrialRecord(1, {}, Status.failed, script), [])
    storage.write("sweep.yaml", storage.read("sweep.yaml") + f"note: {script}\n".encode())
    text = written(storage)
    assert script not in text
    assert f"<h1>{html.escape(script)}</h1>" in text
    assert f"<td>{html.escape(script)}</td>" in text, "the value of a key"
    assert f"<pre>{html.escape(script)}</pre>" in text, "the message of a failed trial"


def test_page_is_loaded_again_only_while_the_sweep_runs(tmp_path: Path) -> None:
    assert 'http-equiv="refresh" content="30"' in written(asha_sweep(tmp_path, status="running"))
    text = written(asha_sweep(tmp_path / "other", status="budget used up: 2 hours"))
    assert "http-equiv" not in text
    assert 'class="status fair">budget used up: 2 hours' in text


def test_page_before_the_first_report(tmp_path: Path) -> None:
    storage = sweep(tmp_path, 8)
    trial(storage, TrialRecord(0, {LR: 1e-3}), [])
    text = written(storage)
    assert "No trial has reported a number yet." in text
    assert "<svg" not in text


def test_a_planted_secret_reaches_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_SECRET", "pl4nted-s3cret")
    storage = asha_sweep(tmp_path, trials=3)
    storage.write("sweep.yaml", storage.read("sweep.yaml") + b"note: pl4nted-s3cret\n")
    trial(storage, TrialRecord(2, {}, Status.failed, "refused: pl4nted-s3cret"), [])
    text = written(storage)
    assert "pl4nted" not in text
    assert "refused: ***" in text


def test_page_refuses_a_folder_without_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not a sweep"):
        write_page(Storage.from_uri(tmp_path))
