"""`checkpoint.best_metric`: one that nothing measures is refused, and what is logged is known beforehand."""

from __future__ import annotations

import pytest
import torch

from jobs.evaluate.config import MeasureKind
from jobs.pretrain.best_metric import check_best_metric
from jobs.pretrain.config import EvaluateBesideConfig, PretrainJob, StageConfig
from plinth.checkpoint.config import CheckpointConfig
from plinth.errors import ConfigError
from poma3d.network.config import LossConfig
from poma3d.network.outputs import JEPA_LOGS, jepa_logs


def job(metric: str, keep_best: int = 1, beside: EvaluateBesideConfig | None = None) -> PretrainJob:
    kept = CheckpointConfig(keep_best=keep_best, best_metric=metric)
    return PretrainJob(main=StageConfig(), checkpoint=kept, evaluate_beside=beside)


@pytest.mark.parametrize("metric", ["loss", "view_text", "scene_image", "jepa", "unique_match_rate"])
def test_what_a_stage_logs_can_be_the_best(metric: str) -> None:
    check_best_metric(job(metric))


@pytest.mark.parametrize("metric", ["R@3-5", "scene R@1-10", "probe AP"])
def test_measures_need_the_evaluation_beside_the_training(metric: str) -> None:
    check_best_metric(job(metric, beside=EvaluateBesideConfig()))
    with pytest.raises(ConfigError, match="which nothing in this job measures") as error:
        check_best_metric(job(metric))
    assert "evaluate_beside" in error.value.fix


def test_a_metric_that_nothing_measures_is_refused_with_its_like() -> None:
    beside = EvaluateBesideConfig(kinds=[MeasureKind.retrieval])
    for metric in ("R@1-7", "probe AP"):
        with pytest.raises(ConfigError, match=f"checkpoint.best_metric is '{metric}'"):
            check_best_metric(job(metric, beside=beside))
    with pytest.raises(ConfigError) as error:
        check_best_metric(job("view_txt"))
    assert error.value.fix.startswith("Did you mean view_text?")


def test_terms_without_weight_are_not_logged() -> None:
    asked = job("jepa")
    asked.main = StageConfig(loss=LossConfig(jepa=0.0))
    with pytest.raises(ConfigError):
        check_best_metric(asked)


def test_nothing_is_said_where_no_best_is_kept() -> None:
    check_best_metric(job("no such", keep_best=0))


def test_the_names_of_the_logs_are_those_that_are_logged() -> None:
    features = torch.rand(1, 6, 4)
    logs = jepa_logs(features, features, features, torch.ones(1, 6, dtype=torch.bool))
    assert set(logs) == set(JEPA_LOGS)
