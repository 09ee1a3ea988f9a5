"""Importance of the varied keys: what decides is found, at one length, and nothing is made up."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from jobs.sweep.importance import importance
from jobs.sweep.page import write_page
from jobs.sweep.state import read_state
from plinth.sweep.records import Report, Status, TrialRecord
from tests.helpers.sweep_folder import JEPA, LR, MODE, asha_sweep, sweep, trial


def test_key_that_decides_has_the_largest_share_at_one_length(tmp_path: Path) -> None:
    """Nine of twelve stopped early: at their ends, how far they came would decide."""
    pytest.importorskip("optuna")
    found = importance(read_state(asha_sweep(tmp_path)))
    assert (found.samples, found.trials) == (1600, 11), "the longest that ten reached; the failed one did not"
    assert next(iter(found.shares)) == LR
    assert found.shares[LR] > 0.5
    assert set(found.shares) == {LR, JEPA, MODE}, "the rank does not vary in all trials"
    assert sum(found.shares.values()) == pytest.approx(1.0)
    assert "11 trials at 1,600 samples" in found.note


def test_many_trials_are_compared_at_the_length_that_half_reached(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    storage = sweep(tmp_path, 30)
    rng = np.random.default_rng(0)
    for i in range(30):
        until, noise = (4 if i < 15 else 2), float(rng.uniform(1e-5, 1e-2))
        value = i % 3 / 10
        metrics = {n: value if n > 2 else noise for n in range(1, until + 1)}  # the noise decides before
        reports = [Report("main", n, 32 * n, 1.0, {"view": metric}) for n, metric in metrics.items()]
        trial(storage, TrialRecord(i, {JEPA: value, LR: noise}, Status.stopped), reports)
    found = importance(read_state(storage))
    assert (found.samples, found.trials) == (128, 15)
    assert found.shares[JEPA] > 0.7


def test_values_between_reports_are_interpolated_and_later_reports_count(tmp_path: Path) -> None:
    """Batch sizes differ, and a trial that cloned another one may report a length twice."""
    pytest.importorskip("optuna")
    storage = sweep(tmp_path, 12)
    for i, value in enumerate(np.linspace(0, 1, 12)):
        ends = [30, 70] if i % 2 else [20, 60, 20, 60]
        metrics = [0.0, 0.0, float(value), float(value)][-len(ends) :]
        reports = [Report("main", s, s, 1.0, {"view": m}) for s, m in zip(ends, metrics, strict=True)]
        values = {JEPA: float(value), LR: 1e-3 * (1 + 5 * i % 12)}
        trial(storage, TrialRecord(i, values, Status.running), reports)
    found = importance(read_state(storage))
    assert found.samples == 60
    assert found.shares[JEPA] > 0.8


def test_values_of_any_type_are_categories(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    storage = sweep(tmp_path, 12)
    for i in range(12):
        reports = [Report("main", 1, 32, 1.0, {"view": float(i % 3 > 0) + i / 100})]
        trial(storage, TrialRecord(i, {MODE: [None, [1, 2], True][i % 3], LR: 1e-3 * (1 + i % 4)}), reports)
    found = importance(read_state(storage))
    assert found.shares[MODE] > 0.5


@pytest.mark.parametrize("trials", [0, 8])
def test_few_trials_have_no_shares(tmp_path: Path, trials: int) -> None:
    pytest.importorskip("optuna")
    found = importance(read_state(asha_sweep(tmp_path, trials) if trials else sweep(tmp_path, 8)))
    assert found.shares == {}
    assert found.note == f"Not computed: {trials} trials can be compared, fewer than 10."


def test_one_varied_key_has_no_share(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    storage = sweep(tmp_path, 12)
    for i in range(12):
        trial(storage, TrialRecord(i, {LR: 1e-3 * (i + 1)}), [Report("main", 1, 32, 1.0, {"view": float(i)})])
    assert "fewer than two keys vary" in importance(read_state(storage)).note


def test_page_says_when_optuna_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    storage = asha_sweep(tmp_path)
    write_page(storage)
    text = storage.read("index.html").decode()
    assert "Not computed: the optuna package is not installed (pip install optuna)." in text
