"""What `poma doctor` asks of a job by its kind: pretraining, a head, a language model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from jobs.common.run_layout import HEADS, STAGES, TRAINING
from jobs.doctor import storage
from jobs.doctor.finding import Finding, Level
from jobs.finetune.config import TRAIN, FinetuneJob
from jobs.finetune.llm.config import FinetuneLlmJob
from jobs.plan.estimate import BatchPlan, JobPlan, plan
from jobs.plan.machines import Cluster
from jobs.pretrain.check import check
from jobs.pretrain.config import PretrainJob, StageLength, stage_config
from jobs.pretrain.resolve import resolve
from plinth.launch.check import possible_sizes
from plinth.launch.config import Workers
from plinth.locations import absolute
from plinth.units import counted

# What opens heads and language models is imported where it is needed: it loads transformers.

ExaminedJob = PretrainJob | FinetuneJob | FinetuneLlmJob


def stages_of(job: ExaminedJob) -> list[tuple[str, StageLength]]:
    """The stages that it trains, by name."""
    if isinstance(job, FinetuneJob):
        return [(HEADS, job.heads)]
    if isinstance(job, FinetuneLlmJob):
        return [(TRAINING, job.training)]
    return [(name, stage) for name in STAGES if (stage := stage_config(job, name)) is not None]


def sizes_of(job: ExaminedJob) -> tuple[int, ...]:
    """Numbers of workers that it may have, ascending.

    Raises:
        PlinthError: a job that cannot be; of pretraining also one whose data do not fit it.
    """
    if isinstance(job, PretrainJob):
        return check(job, resolve(job)).sizes
    if isinstance(job, FinetuneJob):
        from jobs.finetune.resolve import check_settings as of_head

        of_head(job)
    else:
        from jobs.finetune.llm.resolve import check_settings as of_model

        of_model(job)
    low, high = max(1, job.fit.workers.min), max(1, job.fit.workers.max)
    return tuple(possible_sizes([stage for _, stage in stages_of(job)], low, high))


def planned(job: ExaminedJob, fewest: int, most: int, cluster: Cluster | None) -> JobPlan[BatchPlan]:
    """Its plan with so many workers, at the full speed of a GPU."""
    fit = replace(job.fit, workers=Workers(fewest, most))
    if isinstance(job, PretrainJob):
        return plan(replace(job, fit=fit), cluster, 1.0, [])
    if isinstance(job, FinetuneJob):
        from jobs.plan import heads

        return heads.plan(replace(job, fit=fit), cluster, 1.0, [])
    from jobs.plan import language

    return language.plan(replace(job, fit=fit), cluster, 1.0, [])


def data(job: ExaminedJob) -> Iterable[Finding]:
    """What it reads: is it there, and does it fit together. Nothing is written."""
    if isinstance(job, PretrainJob):
        return storage.data(job)
    return _of_head(job) if isinstance(job, FinetuneJob) else _of_model(job)


def _of_head(job: FinetuneJob) -> Iterable[Finding]:
    from jobs.finetune.resolve import look

    found = look(absolute(job))
    for name, asked in found.asked.items():
        of_scenes = counted(len({question.scene_id for question in asked}), "scene")
        yield Finding(
            "data", Level.ok, f"{name}: {counted(len(asked), 'question')} about {of_scenes}, seen through "
            f"{found.seen[name].sets.names}",
        )  # fmt: skip
    yield Finding("data", Level.ok, f"{found.answers.classes} answers, from {TRAIN} or qa.vocabulary")


def _of_model(job: FinetuneLlmJob) -> Iterable[Finding]:
    from jobs.finetune.llm.resolve import look

    found = look(absolute(job))
    for i, each in enumerate(found.tokenised):
        of_scenes = counted(each.counts["scenes"], "scene")
        yield Finding(
            "data", Level.ok,
            f"train.conversations[{i}]: {each.counts['rows']} of {each.kind} about {of_scenes}",
        )  # fmt: skip
        if each.missing:
            yield Finding(
                "data", Level.warn,
                f"train.conversations[{i}]: {each.counts['without_scene']} are about scenes that are not "
                f"there, such as {each.missing[0]}",
                "They are left out.", "Give the features or scenes of these, too.",
            )  # fmt: skip
