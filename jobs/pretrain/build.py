"""What a training worker unpickles: builds a stage's model from the job alone."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.common import models
from jobs.pretrain.config import PretrainJob, stage_config
from plinth.data.sources import OpenSource
from poma3d.sample import SampleShape
from poma3d.stages import MainStage, WarmupStage
from poma3d.stages import build_stage as build_poma_stage


def build_from_sources(job: PretrainJob, name: str, sources: Sequence[OpenSource]) -> WarmupStage | MainStage:
    return build_stage(job, name, SampleShape(**sources[0].manifest.attributes["shape"]))


def build_stage(job: PretrainJob, name: str, shape: SampleShape) -> WarmupStage | MainStage:
    """The stage with new weights, for samples of `shape`; on any worker, from the job alone."""
    stage = stage_config(job, name)
    assert stage is not None
    tower = models.outline(job.teacher, job.storage).tower
    return build_poma_stage(name, job.model, stage.loss, shape, tower, job.seed)
