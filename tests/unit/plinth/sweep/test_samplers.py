"""Where values come from: lists, and an estimator that learns."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest

from plinth.errors import ConfigError
from plinth.sweep.config import Mode, SchedulerConfig, SchedulerKind, SearcherKind, SweepConfig
from plinth.sweep.records import Report, Status, Trial, TrialHistory, TrialRecord, Values
from plinth.sweep.samplers import FixedSampler, import_optuna, make_sampler, planned_trials
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
    return Trial(TrialRecord(index, values, Status.finished), TrialHistory(values, reports))


def test_first_trial_has_the_jobs_own_values() -> None:
    points = make_sampler(config(), [])
    assert isinstance(points, FixedSampler)
    assert points.sample(0) == {}
    found = [points.sample(i) for i in range(1, 12)]
    assert all(found)
    assert points.sample(12) is None
    assert planned_trials(config()) == 12


def test_population_has_no_default_trial() -> None:
    of_pbt = config(scheduler=SchedulerConfig(SchedulerKind.pbt))
    assert make_sampler(of_pbt, []).sample(0) != {}


def test_grid_adds_the_default_trial_to_its_points() -> None:
    of_grid = config(searcher=SearcherKind.grid, space={"a": Dimension(grid=[1, 2, 3])})
    assert planned_trials(of_grid) == 4
    assert [make_sampler(of_grid, []).sample(i) for i in range(4)] == [{}, {"a": 1}, {"a": 2}, {"a": 3}]


def test_optuna_learns_and_samples_the_same_after_an_interruption() -> None:
    pytest.importorskip("optuna")
    job = config(searcher=SearcherKind.optuna, mode=Mode.min)
    estimator, tried = make_sampler(job, []), []
    for index in range(30):
        values = estimator.sample(index)
        assert values is not None
        loss = abs(math.log10(values.get("lr", 1e-1)) + 3)  # best at 1e-3
        estimator.learn(values, loss)
        tried.append(known(index, values, loss))
        if values:
            assert ("layers" in values) == (values["jepa"] == 1.0)
    late = [trial.last("loss") or 0.0 for trial in tried[20:]]
    assert sum(late) / len(late) < 0.8  # 1.1 for uniform draws
    again = make_sampler(job, tried)
    assert again.sample(30) == estimator.sample(30)


def test_missing_optuna_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match="needs the optuna package"):
        import_optuna()
