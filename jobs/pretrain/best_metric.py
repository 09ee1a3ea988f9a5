"""Which names `checkpoint.best_metric` may have in a pretraining job."""

from __future__ import annotations

import difflib

from jobs.common.run_layout import STAGES
from jobs.evaluate.config import MeasureKind
from jobs.evaluate.measure import PROBE, SCENE_QUERY
from jobs.pretrain.config import EvaluateBesideConfig, PretrainJob, stage_config
from plinth.errors import ConfigError
from poma3d import stages
from poma3d.network.outputs import JEPA_LOGS


def check_best_metric(job: PretrainJob) -> None:
    """Refuse a metric that no stage logs and nothing beside the training measures: no checkpoint would ever
    be kept as the best, and nobody would hear of it.

    Raises:
        ConfigError: naming the metric, and those that there are.
    """
    metric = job.checkpoint.best_metric
    if job.checkpoint.keep_best < 1:
        return
    known = _logged(job) | _measured(job.evaluate_beside)
    if metric in known:
        return
    problem = f"checkpoint.best_metric is '{metric}', which nothing in this job measures."
    close = difflib.get_close_matches(metric, sorted(known), n=1)
    fix = f"Did you mean {close[0]}? " if close else ""
    fix += f"There are {', '.join(sorted(known))}"
    beside = "" if job.evaluate_beside else "; retrieval and the probe need the section evaluate_beside"
    raise ConfigError(problem, f"{fix}{beside}.")


def _logged(job: PretrainJob) -> set[str]:
    """Loss, loss terms and logs of the job's stages."""
    found = {"loss"}
    for name in STAGES:
        if (stage := stage_config(job, name)) is not None:
            found |= stages.STAGES[name].reported(stage.loss)
    return found | set(JEPA_LOGS if "jepa" in found else ())


def _measured(asked: EvaluateBesideConfig | None) -> set[str]:
    """What `evaluate_beside` measures, where captions and classes are at hand."""
    if asked is None:
        return set()
    labels = [*(f"R@{m}" for m in asked.retrieval.utterances), SCENE_QUERY]
    found = {f"{label}-{best}" for label in labels for best in asked.retrieval.best}
    kinds = {MeasureKind.retrieval: found, MeasureKind.probe: {PROBE}}
    return {name for kind in asked.kinds for name in kinds[kind]}
