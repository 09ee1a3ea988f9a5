"""What `prove-resume` needs of a job, whichever of the two kinds of training it is of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from jobs.common.run_layout import HEADS, STAGES
from jobs.finetune import resolve as heads
from jobs.finetune.config import FinetuneJob
from jobs.pretrain import resolve as pretraining
from jobs.pretrain.config import PretrainJob, StageLength, stage_config
from plinth.train.resolve import ResolvedStage

TrainingJob = PretrainJob | FinetuneJob


def stage_names(job: TrainingJob) -> list[str]:
    """The stages of a job, in their order."""
    if isinstance(job, FinetuneJob):
        return [HEADS]
    return [name for name in STAGES if stage_config(job, name) is not None]


def resolve(job: TrainingJob) -> Sequence[ResolvedStage]:
    """Its stages with nothing left to find out.

    Raises:
        PlinthError: what the command itself would refuse.
    """
    if isinstance(job, FinetuneJob):
        return [heads.resolve(job).stage]
    return pretraining.resolve(job)


def with_stages(job: TrainingJob, change: Callable[[StageLength], StageLength]) -> TrainingJob:
    """The same job with its stages changed."""
    if isinstance(job, FinetuneJob):
        return replace(job, heads=change(job.heads))
    changed = {name: change(found) for name in STAGES if (found := stage_config(job, name)) is not None}
    return replace(job, **changed)  # type: ignore[arg-type]
