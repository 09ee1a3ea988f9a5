"""What `prove-resume` and `profile` need of a job, whichever kind of training it is of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from jobs.common.cluster import USUAL_WORKERS, ray_cluster
from jobs.common.datasets import open_dataset
from jobs.common.run_layout import HEADS, STAGES, TRAINING
from jobs.demo import command as demo
from jobs.demo.config import DemoJob
from jobs.finetune import resolve as heads
from jobs.finetune.config import FinetuneJob
from jobs.finetune.llm import resolve as language_models
from jobs.finetune.llm.config import FinetuneLlmJob
from jobs.jobfile import read
from jobs.pretrain import resolve as pretraining
from jobs.pretrain.config import PretrainJob, StageLength, stage_config
from plinth.errors import PlinthError
from plinth.train.resolve import ResolvedStage

TrainingJob = PretrainJob | FinetuneJob | FinetuneLlmJob


def load(path: Path, overrides: Sequence[str], folder: str) -> TrainingJob:
    """The job, pretraining, or finetuning of either kind; of a demo, its pretraining, once its data is there.

    Args:
        folder: below which a demo's data and teacher are made where there are none.

    Raises:
        PlinthError: what the command itself would refuse.
    """
    file = read(path)
    if file.kind == FinetuneJob.kind:
        return file.resolve(FinetuneJob, overrides)
    if file.kind == FinetuneLlmJob.kind:
        return file.resolve(FinetuneLlmJob, overrides)
    if file.kind != DemoJob.kind:
        return file.resolve(PretrainJob, overrides)
    job = file.resolve(DemoJob, overrides)
    if _is_made(job):
        print(f"data and teacher of {job.folder} are there: used as they are")
        return job.pretrain
    job = file.resolve(DemoJob, [f"folder={folder}", *overrides])
    Path(job.folder).mkdir(parents=True, exist_ok=True)
    rooms_workers = USUAL_WORKERS if job.rooms.workers is None else job.rooms.workers
    with ray_cluster(job.pretrain.ray, rooms_workers):
        demo.make_data(job, demo.Timings(Path(job.folder) / demo.RECORD))
    return job.pretrain


def _is_made(job: DemoJob) -> bool:
    """Whether a demo has left its data sets, embedded, and its teacher."""
    if not (Path(job.pretrain.teacher.source) / "config.json").is_file():
        return False
    stages = [stage for name in STAGES if (stage := stage_config(job.pretrain, name)) is not None]
    try:
        opened = [open_dataset(s.uri, job.pretrain.storage) for stage in stages for s in stage.data.sources]
    except PlinthError:
        return False
    return all(dataset.teacher is not None for dataset in opened)


def cut(stage: StageLength, steps: int) -> StageLength:
    """The stage, only so many steps long."""
    short = replace(stage, steps=steps, warmup_steps=min(2, steps - 1))
    return replace(short, epochs=None, samples=None, warmup_samples=None)


def stage_names(job: TrainingJob) -> list[str]:
    """The stages of a job, in their order."""
    if isinstance(job, FinetuneJob):
        return [HEADS]
    if isinstance(job, FinetuneLlmJob):
        return [TRAINING]
    return [name for name in STAGES if stage_config(job, name) is not None]


def resolve(job: TrainingJob) -> Sequence[ResolvedStage]:
    """Its stages with nothing left to find out.

    Raises:
        PlinthError: what the command itself would refuse.
    """
    if isinstance(job, FinetuneJob):
        return [heads.resolve(job).stage]
    if isinstance(job, FinetuneLlmJob):
        return [language_models.resolve(job).stage]
    return pretraining.resolve(job)


def with_stages(job: TrainingJob, change: Callable[[StageLength], StageLength]) -> TrainingJob:
    """The same job with its stages changed."""
    if isinstance(job, FinetuneJob):
        return replace(job, heads=change(job.heads))
    if isinstance(job, FinetuneLlmJob):
        return replace(job, training=change(job.training))
    changed = {name: change(found) for name in STAGES if (found := stage_config(job, name)) is not None}
    return replace(job, **changed)  # type: ignore[arg-type]
