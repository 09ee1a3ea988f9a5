"""A sweep's folder read back: names, kinds of parameters, costs, what has been used up."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.sweep.show import best_text
from jobs.sweep.state import Cost, Over, metric_text, read_state, short_names, value_text
from plinth.errors import StorageError
from plinth.observe.ledger import FINISHED, Mark, Record
from plinth.storage import Storage
from plinth.sweep.records import (
    SHARED,
    Report,
    Status,
    TrialHistory,
    TrialRecord,
    trial_name,
    write_history,
)
from tests.helpers.run_folder import records
from tests.helpers.sweep_folder import JEPA, LR, MODE, RANK, asha_sweep, sweep, trial


def test_short_names_are_unique() -> None:
    assert short_names([]) == []
    assert short_names([LR, JEPA, MODE]) == ["lr", "jepa", "mode"]
    assert short_names(["main.lr", "warmup.lr", "optim.beta1"]) == ["main.lr", "warmup.lr", "beta1"]
    deep = ["a.b.c.lr", "a.d.c.lr", "lr"]
    assert short_names(deep) == ["b.c.lr", "d.c.lr", "lr"]


def test_varied_keys_and_their_kinds(tmp_path: Path) -> None:
    state = read_state(asha_sweep(tmp_path))
    kinds = {varied.key: (varied.name, varied.is_log, varied.is_list) for varied in state.varied}
    assert kinds == {
        LR: ("lr", True, False),
        JEPA: ("jepa", False, False),
        MODE: ("mode", False, True),
        RANK: ("rank", False, False),
    }


def test_costs_steps_and_counts_of_a_sweep(tmp_path: Path) -> None:
    storage = asha_sweep(tmp_path, gpus=1)
    state = read_state(storage)
    spent_s = [reports[-1].seconds + 10 for t in state.trials if (reports := t.history.reports)]
    assert state.cost.gpu_hours == pytest.approx(sum(spent_s) / 3600)
    assert state.cost.money == pytest.approx(2.5 * state.cost.gpu_hours)
    assert state.steps == sum(t.history.reports[-1].step for t in state.trials)
    assert state.budget == {"hours": 2.0}
    assert state.counts == {Status.finished: 2, Status.stopped: 9, Status.failed: 1}
    assert list(state.counts) == [Status.finished, Status.stopped, Status.failed]


def test_cost_includes_the_shared_warmup(tmp_path: Path) -> None:
    storage = sweep(tmp_path, 1, shares_warmup=True)
    assert read_state(storage).cost == Cost()
    warmup = Record("a", "warmup", 2, 0, 0, 3600, 10, start_up_s=10, marks=[Mark(0)], outcome=FINISHED)
    records(storage.child(SHARED), [warmup])
    assert read_state(storage).cost == Cost(worker_hours=2.0)


def test_steps_of_all_stages_count(tmp_path: Path) -> None:
    storage = sweep(tmp_path, 1)
    reports = [Report(stage, step, 0, 1.0, {}) for stage in ("warmup", "main") for step in (5, 10)]
    trial(storage, TrialRecord(0, {LR: 1e-3}, Status.running), reports)
    assert read_state(storage).steps == 20


def test_ranked_trials_have_finite_metrics_and_present_values(tmp_path: Path) -> None:
    storage = sweep(tmp_path, 3)
    for i, found in enumerate((float("nan"), float("inf"), 3.0)):
        trial(
            storage, TrialRecord(i, {LR: 1e-3}, Status.running), [Report("main", 1, 32, 1.0, {"view": found})]
        )
    said = TrialHistory({LR: 2e-3}, [Report("main", 1, 32, 1.0, {"view": 3.0})], donors=["001 at 7"])
    write_history(storage.child("trials").child(trial_name(2)), said)
    state = read_state(storage)
    assert [t.record.index for t in state.ranked] == [2]
    assert state.ranked[0].history.values == {LR: 2e-3}
    assert state.curve(state.trials[0]) == ([], [])
    assert state.curve(state.trials[2]) == ([32.0], [3.0])


def test_read_state_refuses_a_folder_without_a_sweep(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"is not a sweep.*output/name"):
        read_state(Storage.from_uri(tmp_path))


def test_texts_of_values_and_costs() -> None:
    values = [0.00056949, 3, "lora", None, True, False, [1, 2], 20000.0]
    assert [value_text(v) for v in values] == [
        "0.000569", "3", "lora", "null", "true", "false", "[1, 2]", "2e+04",
    ]  # fmt: skip
    assert [metric_text(v) for v in (None, 2.30411, 0.0, -0.5, 0.00123456, 1234567.0)] == [
        "-", "2.3041", "0.0000", "-0.5000", "0.001235", "1.235e+06",
    ]  # fmt: skip
    assert str(Cost(2.0)) == "2.000 worker-hours"
    assert str(Cost(2.0, 8.0, 20.0)) == "8.000 GPU-hours for 20.00"


def test_default_trial_shows_the_jobs_own_values(tmp_path: Path) -> None:
    storage = sweep(tmp_path, 2)
    for i, values in enumerate(({}, {LR: 2e-3, JEPA: 0.5, MODE: "full"})):
        said = Report("main", 1, 32, 1.0, {"view": 1.0 + i})
        trial(storage, TrialRecord(i, values, Status.finished), [said])
    state = read_state(storage)
    assert state.trials[0].history.values == {JEPA: 1.0, MODE: "lora", RANK: 2}, "main.lr is null"
    assert state.trials[0].record.values == {}
    assert RANK not in state.trials[1].history.values
    assert best_text(state) == ("trial 000, view 1.0000; the job as it stands: jepa 1, mode lora, rank 2")


def test_trials_that_are_over_are_read_once_by_a_process_that_looks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read, listed = Storage.read, Storage.list
    monkeypatch.setattr(Storage, "read", lambda self, key: (asked.append(key), read(self, key))[1])
    monkeypatch.setattr(
        Storage, "list", lambda self, prefix="": (asked.append(f"list {prefix}"), listed(self, prefix))[1]
    )
    again = []
    for trials in (12, 28):
        storage, over = asha_sweep(tmp_path / str(trials), trials), Over()
        asked.clear()
        first = read_state(storage, over)
        assert len(asked) <= 3 + 16 + 3 * trials, (
            "a record, reports and a ledger each; what is beyond the last"
        )
        assert [one for one in asked if one.startswith("list")] == ["list "], "one list of the whole sweep"
        asked.clear()
        assert read_state(storage, over) == first
        again.append(len(asked))
    assert again[0] == again[1], "what is asked again does not grow with the trials that are over"


def test_a_trial_that_goes_on_is_read_again(tmp_path: Path) -> None:
    storage, over = sweep(tmp_path, 2), Over()
    for index, status in enumerate((Status.running, Status.stopped)):
        reports = [Report("main", 25, 800, 9.0, {"view": 3.0})]
        trial(storage, TrialRecord(index, {LR: 1e-3}, status), reports)
    before = read_state(storage, over)
    later = [Report("main", 25, 800, 9.0, {"view": 3.0}), Report("main", 50, 1600, 19.0, {"view": 2.0})]
    trial(storage, TrialRecord(0, {LR: 1e-3}, Status.running), later)
    after = read_state(storage, over)
    assert (before.steps, after.steps) == (50, 75)
    assert after.costs == read_state(storage).costs
