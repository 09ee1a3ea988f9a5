"""The sweep page: all that is known, self-contained, honest about few trials."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from jobs.sweep.page import importances, write_page
from jobs.sweep.state import read_state
from plinth.errors import StorageError
from plinth.storage import Storage
from plinth.sweep.records import Report, Status, TrialRecord
from tests.helpers.run_folder import NOW
from tests.helpers.sweep_folder import JEPA, LR, MODE, RANK, asha_sweep, sweep, trial


def written(storage: Storage) -> str:
    assert write_page(storage, NOW) == f"{storage.uri}/index.html"
    return storage.read("index.html").decode()


def test_the_page_has_everything_and_needs_nothing(tmp_path: Path) -> None:
    storage = asha_sweep(tmp_path, gpus=1)
    text = written(storage)
    for expected in (
        "tiny: finished", 'class="status good">finished', "Best view</dt><dd>2.4709",
        "Wall time</dt><dd>65 min", "Finished</dt><dd>2<", "Stopped</dt><dd>9<",
        "Failed</dt><dd>1<", "GPU-hours for 0.",
        f"poma sweep promote {storage.uri} 009", "view of each trial", "What view depends on",
        "view 2.4709; lr 0.000569, jepa 0.943, mode lora, rank 7", "ranks at 1,600 samples",
        "the loss &lt;was&gt; not finite", "kind: sweep", "trial  lr        jepa",
    ):  # fmt: skip
        assert expected in text, expected
    assert not re.findall(r"<script|<link|@import|url\(['\"]?http|src=|http-equiv", text)
    assert text.count("<svg") == 3
    ids = re.findall(r'id="([a-z]+-trial-\d+)"', text)
    assert len(ids) == len(set(ids)) == 3 * 12


def test_it_is_loaded_again_only_while_the_sweep_goes_on(tmp_path: Path) -> None:
    assert 'http-equiv="refresh" content="30"' in written(asha_sweep(tmp_path, status="running"))
    text = written(asha_sweep(tmp_path / "other", status="budget used up: 2 hours"))
    assert "http-equiv" not in text
    assert 'class="status fair">budget used up: 2 hours' in text


def test_before_the_first_number(tmp_path: Path) -> None:
    storage = sweep(tmp_path, 8)
    trial(storage, TrialRecord(0, {LR: 1e-3}), [])
    text = written(storage)
    assert "No trial has reported a number yet." in text
    assert "Too few trials to tell: 0 can be compared" in text
    assert "<svg" not in text


def test_few_trials_tell_nothing(tmp_path: Path) -> None:
    text = written(asha_sweep(tmp_path, trials=8))
    assert "Too few trials to tell: 8 can be compared, and fewer than 10 show chance." in text
    assert "hardly chance" not in text


def test_a_planted_secret_reaches_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_SECRET", "pl4nted-s3cret")
    storage = asha_sweep(tmp_path, trials=3)
    storage.write("sweep.yaml", storage.read("sweep.yaml") + b"note: pl4nted-s3cret\n")
    trial(storage, TrialRecord(2, {}, Status.failed, "refused: pl4nted-s3cret"), [])
    text = written(storage)
    assert "pl4nted" not in text
    assert "refused: ***" in text


def test_a_folder_that_is_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not a sweep"):
        write_page(Storage.from_uri(tmp_path))


def test_trials_are_compared_at_one_length(tmp_path: Path) -> None:
    """Nine of twelve stopped early: at their ends, how far they came would decide."""
    samples, found = importances(read_state(asha_sweep(tmp_path)))
    assert samples == 1600, "the longest that ten have come to: the failed one has not"
    assert {key: one.trials for key, one in found.items()} == {LR: 11, JEPA: 11, MODE: 11, RANK: 6}
    assert found[LR].share == pytest.approx(0.70, abs=0.01)
    assert not found[LR].may_be_chance
    assert found[MODE].may_be_chance
    assert found[RANK].share is None, "only where its condition holds"


def test_the_length_is_that_of_half_the_trials_where_there_are_many(tmp_path: Path) -> None:
    storage = sweep(tmp_path, 30)
    for i in range(30):
        until = 4 if i < 15 else 2
        value = i % 3 / 10
        # At the length of all, the order is another one than at that of half.
        reports = [
            Report("main", n, 32 * n, 1.0, {"view": value if n > 2 else 1.0 - value})
            for n in range(1, until + 1)
        ]
        trial(storage, TrialRecord(i, {JEPA: value}, Status.stopped), reports)
    samples, found = importances(read_state(storage))
    assert samples == 128
    assert found[JEPA].trials == 15
    assert found[JEPA].share == pytest.approx(1.0)
    assert found[LR].trials == 0


def test_reports_at_other_lengths_are_interpolated_and_later_ones_count(tmp_path: Path) -> None:
    """Batch sizes differ, and a trial that took over another's weights may be set back."""
    storage = sweep(tmp_path, 12)
    values = np.linspace(0, 1, 12)
    for i, value in enumerate(values):
        ends = [30, 70] if i % 2 else [20, 60, 20, 60]
        metrics = [0.0, 0.0, float(value), float(value)][-len(ends) :]
        reports = [Report("main", s, s, 1.0, {"view": m}) for s, m in zip(ends, metrics, strict=True)]
        trial(storage, TrialRecord(i, {JEPA: float(value)}, Status.running), reports)
    samples, found = importances(read_state(storage))
    assert samples == 60
    assert found[JEPA].share is not None
    assert found[JEPA].share > 0.8
