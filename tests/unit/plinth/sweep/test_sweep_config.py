"""What a sweep is asked for: mistakes."""

from __future__ import annotations

from typing import Any

import pytest

from plinth.errors import ConfigError
from plinth.sweep.config import BudgetConfig, SchedulerConfig, SchedulerKind, SearcherKind, SweepConfig
from plinth.sweep.space import Dimension

METRICS = {"loss", "scene_text", "R@1-5"}
PBT = SchedulerConfig(SchedulerKind.pbt)
CONDITIONAL = {"a": Dimension(choice=[1, 2]), "b": Dimension(choice=[1, 2], when={"a": 1})}


def config(**changes: Any) -> SweepConfig:
    return SweepConfig(**{"space": {"lr": Dimension(uniform=[0.1, 1.0])}, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": "R@1-6"}, "sweep.metric R@1-6: no trial of this job reports it. Did you mean R@1-5?"),
        ({"metric": "accuracy"}, "Possible are R@1-5, loss, scene_text"),
        ({"trials": 0}, "sweep.trials is 0, expected 1 or more"),
        ({"workers": 0}, "sweep.workers is 0"),
        ({"max_concurrent": 0}, "sweep.max_concurrent is 0"),
        ({"length": 1.5}, "sweep.length is 1.5"),
        ({"driver_cpus": 0.0}, "sweep.driver_cpus is 0.0"),
        ({"driver_gpus": -1.0}, "sweep.driver_gpus is -1.0"),
        ({"scheduler": SchedulerConfig(grace=1.0)}, "sweep.scheduler.grace is 1.0"),
        ({"scheduler": SchedulerConfig(reduction=1.0)}, "sweep.scheduler.reduction is 1.0"),
        ({"budget": BudgetConfig(hours=0)}, "sweep.budget.hours is 0"),
        ({"scheduler": PBT, "searcher": SearcherKind.optuna}, "both choose values"),
        ({"scheduler": PBT, "trials": 1}, "a population needs 2 or more"),
        ({"scheduler": PBT, "space": CONDITIONAL}, "sweep.space.b has a condition"),
    ],
)
def test_invalid_sweep_config_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(").replace("?", r"\?")):
        config(**changes).validate(METRICS)


def test_metric_that_no_trial_reports_is_refused() -> None:
    for metric in METRICS:
        assert config(metric=metric).validate(METRICS) is None
    with pytest.raises(ConfigError, match="no trial of this job reports it"):
        config(metric="R@1-5").validate(METRICS - {"R@1-5"})
