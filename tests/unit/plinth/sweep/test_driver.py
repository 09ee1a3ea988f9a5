"""What a sweep's driver does besides running trials. The rest is in tests/integration/sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from plinth.errors import PlinthError
from plinth.sweep.config import BudgetConfig, SchedulerKind
from plinth.sweep.driver import SweepDriver, _Budget
from plinth.sweep.records import (
    TRIALS,
    Report,
    Status,
    TrialHistory,
    TrialRecord,
    write_history,
    write_trial,
)
from tests.helpers.toy.sweep import driver, toy_config


def sweep(
    folder: Path, losses: list[float], budget: BudgetConfig | None = None, message: str = ""
) -> SweepDriver:
    """A sweep whose trials have said these losses, one step each."""
    made = driver(folder, toy_config(SchedulerKind.none, budget=budget or BudgetConfig()))
    for index, loss in enumerate(losses):
        status = Status.failed if message else Status.finished
        write_trial(made.storage, TrialRecord(index, {}, status, message))
        reports = [Report("toy", 1, 8, 1.0, {"loss": loss})]
        write_history(made.storage.child(TRIALS).child(f"{index:03d}"), TrialHistory({}, reports))
    return made


def test_no_number_in_any_trial(tmp_path: Path) -> None:
    with pytest.raises(PlinthError, match=r"None of 2 trials gave a value of loss.*every point diverges"):
        sweep(tmp_path, [float("nan"), float("inf")])._check_any_number()


def test_the_first_failure_is_said(tmp_path: Path) -> None:
    with pytest.raises(PlinthError, match="First failure: no room"):
        sweep(tmp_path, [float("nan")], message="no room")._check_any_number()


def test_one_number_will_do(tmp_path: Path) -> None:
    made = sweep(tmp_path, [float("nan"), 0.5])
    assert made._check_any_number() is None
    write_history(made.storage.child(TRIALS).child("001"), TrialHistory({}, []))
    with pytest.raises(PlinthError, match="None of 2 trials"):
        made._check_any_number()


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (BudgetConfig(steps=2), "budget of 2 steps used up"),
        (BudgetConfig(steps=3), ""),
        (BudgetConfig(hours=0.5), "budget of 0.5 hours used up"),
        (BudgetConfig(hours=2.0), ""),
        (BudgetConfig(cost=1.0), ""),
        (BudgetConfig(), ""),
    ],
)
def test_budgets(tmp_path: Path, budget: BudgetConfig, said: str) -> None:
    made = sweep(tmp_path, [1.0, 2.0], budget)
    made.record.spent_s = 3600.0
    assert _Budget(made)._exceeded() == said


def test_a_request_to_stop_ends_it(tmp_path: Path) -> None:
    made = sweep(tmp_path, [])
    budget = _Budget(made)
    assert not budget.stop_all()
    made.stop.set()
    assert budget.stop_all()
    assert budget.reason == "interrupted"
