"""What a training worker unpickles: builds a head from the job alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jobs.common import models
from jobs.common.run_layout import HEADS
from jobs.finetune.config import FinetuneJob
from jobs.finetune.set_up import SceneSetup, largest_batch, seen_scenes
from jobs.pretrain.stage_spec import optim_of
from plinth.data.sources import OpenSource
from plinth.errors import ConfigError
from plinth.storage import StorageOptions
from poma3d.heads.config import TextConfig
from poma3d.heads.questions import QuestionShape
from poma3d.heads.stage import QuestionStage
from poma3d.heads.text import load_tower
from poma3d.seen.scenes import SeenScenes

WITH = "the head"
"""What an encoder is trained with, as its record says."""


def build_from_sources(
    job: FinetuneJob, classes: int, setup: SceneSetup | None, sources: Sequence[OpenSource]
) -> QuestionStage:
    return build_stage(job, classes, QuestionShape(**sources[0].manifest.attributes["shape"]), setup)


def build_stage(
    job: FinetuneJob, classes: int, shape: QuestionShape, setup: SceneSetup | None = None
) -> QuestionStage:
    """The head with new weights and its text tower; on any worker, from the job alone.

    Args:
        setup: for rows that name scenes.

    Raises:
        ConfigError: the tower cannot be loaded, or the encoder has other weights now.
        CheckpointError: no encoder there.
    """
    models.quiet_transformers()
    try:
        tower = load_tower(local(job.text, job.storage))
    except ValueError as error:
        raise ConfigError(f"{error}.") from None
    return QuestionStage(job.head, job.qa, tower, shape, classes, job.seed, seen_of(job, setup))


def seen_of(job: FinetuneJob, setup: SceneSetup | None) -> SeenScenes | None:
    """What the head sees of scenes by their numbers; None where its rows hold features.

    Raises:
        ConfigError: the encoder has other weights now.
        CheckpointError: no encoder there.
    """
    if setup is None:
        return None
    lr = optim_of(job, job.heads, HEADS).lr
    batch_size = largest_batch(job.heads, job.fit.workers)
    return seen_scenes(job.scene, job.encoder, setup, lr, batch_size, job.storage, WITH)


def local(text: TextConfig, options: StorageOptions) -> TextConfig:
    """The same with a tower in storage fetched to this node."""
    return replace(text, source=models.fetch(text.source, options, "text.source"))
