"""Where values come from: lists, and an estimator that learns."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest

from plinth.errors import ConfigError
from plinth.sweep.config import Mode, SchedulerConfig, SchedulerKind, SearcherKind, SweepConfig
from plinth.sweep.records import Report, Status, Trial, TrialRecord, TrialReports, Values
from plinth.sweep.samplers import Listed, import_optuna, planned_trials, proposer
from plinth.sweep.space import Dimension


def config(**changes: Any) -> SweepConfig:
    space = {
        "lr": Dimension(log_uniform=[1e-5, 1e-1]),
        "jepa": Dimension(choice=[0.0, 1.0]),
        "layers": Dimension(integer=[1, 4], when={"jepa": 1.0}),
    }
    return SweepConfig(**{"space": space, "trials": 12, **changes})


def known(index: int, values: Values, loss: float) -> Trial:
    reports = [Report("main", 1, 8, 1.0, {"loss": loss})]
    return Trial(TrialRecord(index, values, Status.finished), TrialReports(values, reports))


def test_the_first_trial_is_the_job_as_it_stands() -> None:
    points = proposer(config(), [])
    assert isinstance(points, Listed)
    assert points.propose(0) == {}
    found = [points.propose(i) for i in range(1, 12)]
    assert all(found)
    assert points.propose(12) is None
    assert planned_trials(config()) == 12


def test_a_population_has_no_default_member() -> None:
    of_pbt = config(scheduler=SchedulerConfig(SchedulerKind.pbt))
    assert proposer(of_pbt, []).propose(0) != {}


def test_a_grid_has_one_trial_more_than_points() -> None:
    of_grid = config(searcher=SearcherKind.grid, space={"a": Dimension(grid=[1, 2, 3])})
    assert planned_trials(of_grid) == 4
    assert [proposer(of_grid, []).propose(i) for i in range(4)] == [{}, {"a": 1}, {"a": 2}, {"a": 3}]


def test_the_estimator_learns_and_proposes_the_same_after_an_interruption() -> None:
    pytest.importorskip("optuna")
    job = config(searcher=SearcherKind.optuna, mode=Mode.min)
    estimator, tried = proposer(job, []), []
    for index in range(30):
        values = estimator.propose(index)
        assert values is not None
        loss = abs(math.log10(values.get("lr", 1e-1)) + 3)  # best at 1e-3
        estimator.learn(values, loss)
        tried.append(known(index, values, loss))
        if values:
            assert ("layers" in values) == (values["jepa"] == 1.0)
    late = [trial.last("loss") or 0.0 for trial in tried[20:]]
    assert sum(late) / len(late) < 0.8  # 1.1 for uniform draws
    again = proposer(job, tried)
    assert again.propose(30) == estimator.propose(30)


def test_a_package_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match="needs the optuna package"):
        import_optuna()
