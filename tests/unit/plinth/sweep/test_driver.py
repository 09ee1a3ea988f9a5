"""A sweep's driver: whole sweeps on a real Ray whose trials train nothing, and its parts.

Trials that train are in tests/integration/sweep.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from plinth.errors import ConfigError, PlinthError
from plinth.launch.placement import TrialPlacement
from plinth.storage import Storage
from plinth.sweep.budget import Budget
from plinth.sweep.config import BudgetConfig, SchedulerKind, SearcherKind, SweepConfig
from plinth.sweep.driver import SweepDriver, check_values, pending_trials
from plinth.sweep.records import (
    TRIALS,
    Report,
    Status,
    SweepRecord,
    Trial,
    TrialHistory,
    TrialRecord,
    Values,
    read_trials,
    write_history,
    write_trial,
)
from tests.helpers.metrics import PLANTED
from tests.helpers.toy.run import GLOBAL_BATCH
from tests.helpers.toy.sweep import EVERY, LR, STEPS, driver, toy_config, train_nothing


def sweep_driver(
    folder: Path, config: SweepConfig, train: Callable[..., None] = train_nothing, **changes: Any
) -> SweepDriver:
    made = driver(folder, config)
    return replace(made, task=replace(made.task, train=partial(train, made.storage)), **changes)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.slow
def test_sweep_finishes_and_a_second_start_only_replays(cluster: None, tmp_path: Path) -> None:
    shown: list[int] = []
    first = sweep_driver(tmp_path, toy_config(SchedulerKind.none), show=lambda: shown.append(1))
    assert first.run().status == "finished"
    assert shown
    trials = read_trials(first.storage)
    assert [t.record.values["lr"] for t in trials] == LR
    assert [t.record.status for t in trials] == [Status.finished] * len(LR)
    assert [t.best("loss", "min") for t in trials] == pytest.approx([1000 * lr for lr in LR])
    assert {len(t.history.reports) for t in trials} == {STEPS // EVERY}
    assert [t.history.reports[-1].samples for t in trials] == [STEPS * GLOBAL_BATCH] * len(LR)

    def fail(*_: Any) -> None:
        raise AssertionError("trained again")

    second = sweep_driver(tmp_path, toy_config(SchedulerKind.none), fail)
    record = second.run()
    assert (record.status, record.starts) == ("finished", 2)
    assert [t.history for t in read_trials(first.storage)] == [t.history for t in trials]


@pytest.mark.slow
def test_failed_trial_keeps_its_message_and_stop_pauses_the_others(cluster: None, tmp_path: Path) -> None:
    stop = threading.Event()

    def train(storage: Storage, name: str, values: Values, placement: TrialPlacement, changed: bool) -> None:
        if name == "000":
            raise ValueError("a trial with a bug")
        train_nothing(storage, name, values, placement, changed, pause_s=300)

    def show() -> None:
        trials = read_trials(interrupted.storage)
        has_failed = any(t.record.status is Status.failed for t in trials)
        if has_failed and any(t.history.reports for t in trials):
            stop.set()

    config = toy_config(SchedulerKind.none, max_failures=0, show_every_s=0.2, max_concurrent=2)
    config.trials = 3
    interrupted = sweep_driver(tmp_path, config, train, show=show, stop=stop)
    with pytest.raises(PlinthError, match="a trial with a bug"):
        interrupted.run()
    assert interrupted.record.status == "interrupted"
    failed, *others = read_trials(interrupted.storage)
    assert failed.record.status is Status.failed
    assert "a trial with a bug" in failed.record.message
    assert Status.running not in {t.record.status for t in others}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "77"}])
def test_trials_get_the_users_settings_and_ray_no_keys(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    """Tune's own way to hand settings on writes this process's AWS keys to Ray's logs. A trial without an
    environment of its own may start in processes that Ray has ready."""
    import ray

    for name, value in {**settings, "AWS_SECRET_ACCESS_KEY": PLANTED}.items():
        monkeypatch.setenv(name, value)
    found = tmp_path / "found"

    def train(storage: Storage, name: str, values: Values, placement: TrialPlacement, changed: bool) -> None:
        environment = ray.get_runtime_context().runtime_env.to_dict()
        found.write_text(
            json.dumps([environment, placement.is_alone, os.environ.get("AWS_SECRET_ACCESS_KEY")])
        )
        train_nothing(storage, name, values, placement, changed, pause_s=0)

    config = toy_config(SchedulerKind.none)
    config.trials = 1
    sweep_driver(tmp_path, config, train).run()
    assert json.loads(found.read_text()) == [{"env_vars": settings} if settings else {}, True, None]
    session = ray.get_runtime_context().get_session_name()
    logs = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray", session, "logs")
    texts = [path.read_bytes() for path in logs.rglob("*") if path.is_file()]
    assert any(b"TrialTrainable" in text for text in texts)
    assert not [text for text in texts if PLANTED.encode() in text]


@pytest.mark.slow
def test_cluster_without_resources_for_one_trial_is_refused(cluster: None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"A trial of 1 worker needs 4.1 CPU; the cluster has 2 CPU"):
        sweep_driver(tmp_path, toy_config(), resources={"CPU": 4.0}).run()


def ended(index: int, losses: list[float], message: str = "") -> Trial:
    status = Status.failed if message else Status.finished
    reports = [Report("toy", i + 1, 8, 1.0, {"loss": loss}) for i, loss in enumerate(losses)]
    return Trial(TrialRecord(index, {}, status, message), TrialHistory({}, reports))


def test_no_finite_value_in_any_trial_is_an_error() -> None:
    nan, inf = float("nan"), float("inf")
    with pytest.raises(PlinthError, match=r"None of 2 trials gave a value of loss.*every point diverges"):
        check_values([ended(0, [nan]), ended(1, [inf])], "loss", "min")
    with pytest.raises(PlinthError, match="First failure: no room"):
        check_values([ended(0, [nan], "no room")], "loss", "min")
    check_values([ended(0, [nan]), ended(1, [0.5])], "loss", "min")
    check_values([], "loss", "min")


def budget(folder: Path, limits: BudgetConfig, stop: threading.Event | None = None) -> Budget:
    """Of a sweep that has spent an hour and two steps."""
    storage = Storage.from_uri(folder)
    for index in range(2):
        trial = ended(index, [1.0])
        write_trial(storage, trial.record)
        write_history(storage.child(TRIALS).child(trial.record.name), trial.history)
    record = SweepRecord("s", "loss", "min", "none", "grid", 0, 2, {}, 64, spent_s=3600.0)
    return Budget(limits, storage, record, stop or threading.Event())


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (BudgetConfig(steps=2), "budget of 2 steps used up"),
        (BudgetConfig(steps=3), ""),
        (BudgetConfig(hours=0.5), "budget of 0.5 hours used up"),
        (BudgetConfig(hours=2.0), ""),
        (BudgetConfig(cost=1.0), ""),
        (BudgetConfig(), ""),
    ],
)
def test_budget_limits(tmp_path: Path, limits: BudgetConfig, reason: str) -> None:
    assert budget(tmp_path, limits).exceeded() == reason


def test_stop_event_ends_the_sweep(tmp_path: Path) -> None:
    stop = threading.Event()
    asked = budget(tmp_path, BudgetConfig(), stop)
    assert not asked.stop_all()
    stop.set()
    assert asked.stop_all()
    assert asked.reason == "interrupted"


@pytest.mark.parametrize(
    ("searcher", "most", "fit", "expected"),
    [
        (SearcherKind.random, None, 0, 16),
        (SearcherKind.random, 3, 0, 3),
        (SearcherKind.optuna, None, 0, 16),
        (SearcherKind.optuna, None, 2, 1),
    ],
)
def test_a_cluster_that_starts_at_nothing_hears_of_many_trials(
    searcher: SearcherKind, most: int | None, fit: int, expected: int
) -> None:
    config = SweepConfig(trials=40, searcher=searcher, max_concurrent=most)
    assert pending_trials(config, fit) == expected
